"""What a handler knows about the call it is in.

`Context` is the second argument of a handler that asks for one, and `Stream` the third of a handler that streams by
sending. Both are made by the worker; their members are described in `_core.pyi`.
"""

from anyserve._core import Context, Stream

__all__ = ["Context", "Stream"]
