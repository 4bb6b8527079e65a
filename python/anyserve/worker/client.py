"""The client under the name by which handlers of other systems import it."""

from anyserve.client import AsyncClient, Client

__all__ = ["AsyncClient", "Client"]
