# ruff: noqa: PYI021 - this is the reference manual; the compiled module has no other.
"""The Rust half of AnyServe: messages, the worker's loop, the client, the replica.

Apps import these names from `anyserve`; what starts with an underscore is for the package itself.
"""

from asyncio import AbstractEventLoop, Future
from collections.abc import Callable, Iterable, Mapping, Sequence
from logging import Logger, LoggerAdapter
from typing import Any, Literal, Never, Self, SupportsIndex, TypeAlias, final

import numpy.typing as npt

from anyserve._groups import Group
from anyserve._inputs import Inputs
from anyserve._results import AsyncResultStream, InferResult, ResultStream
from anyserve.handlers import Handler
from anyserve.objects import Objects
from anyserve.worker._life import Life

_Parameter: TypeAlias = bool | int | float | str
_Array: TypeAlias = npt.NDArray[Any]

# === messages of KServe v2 ===

@final
class Contents:
    """The elements of one tensor, in whatever form they came.

    Assigning the contents of an input to an output moves a reference and no bytes. A typed list is made when it is
    first asked for; from then on it *is* the contents, so that appending to it counts. Which list a tensor has:

    ==================  =====================
    `bool_contents`     BOOL
    `int_contents`      INT8, INT16, INT32
    `int64_contents`    INT64
    `uint_contents`     UINT8, UINT16, UINT32
    `uint64_contents`   UINT64
    `fp32_contents`     FP32
    `fp64_contents`     FP64
    `bytes_contents`    BYTES
    ==================  =====================

    FP16 and BF16 have `raw` only. A list of another datatype than the tensor's is empty. Setting one form replaces
    what was there. Whether the elements fit datatype and shape is checked when the message is sent.

    Args:
        raw: the elements as the protocol's raw bytes, any bytes-like object.
        **lists: at most one of the typed lists, such as ``int64_contents=[1, 2]``.

    Raises:
        InvalidInput: more than one form is given.
        TypeError: there is no list of that name.
    """

    def __new__(cls, *, raw: object | None = None, **lists: Iterable[Any]) -> Contents: ...
    @property
    def raw(self) -> bytes:
        """The raw bytes: row-major, little-endian; each element of BYTES after its length in 4 bytes. A copy.

        Raises:
            ValueError: they are a typed list that is part of no tensor yet, or does not fit the tensor's datatype.
        """

    @raw.setter
    def raw(self, raw: Any) -> None: ...
    @property
    def bool_contents(self) -> list[bool]: ...
    @bool_contents.setter
    def bool_contents(self, values: Iterable[bool]) -> None: ...
    @property
    def int_contents(self) -> list[int]: ...
    @int_contents.setter
    def int_contents(self, values: Iterable[int]) -> None: ...
    @property
    def int64_contents(self) -> list[int]: ...
    @int64_contents.setter
    def int64_contents(self, values: Iterable[int]) -> None: ...
    @property
    def uint_contents(self) -> list[int]: ...
    @uint_contents.setter
    def uint_contents(self, values: Iterable[int]) -> None: ...
    @property
    def uint64_contents(self) -> list[int]: ...
    @uint64_contents.setter
    def uint64_contents(self, values: Iterable[int]) -> None: ...
    @property
    def fp32_contents(self) -> list[float]: ...
    @fp32_contents.setter
    def fp32_contents(self, values: Iterable[float]) -> None: ...
    @property
    def fp64_contents(self) -> list[float]: ...
    @fp64_contents.setter
    def fp64_contents(self, values: Iterable[float]) -> None: ...
    @property
    def bytes_contents(self) -> list[bytes]: ...
    @bytes_contents.setter
    def bytes_contents(self, values: Iterable[bytes | str]) -> None: ...

@final
class InferInput:
    """One input tensor of a request.

    The worker makes them; tests of handlers and clients may make them too.

    Args:
        name: unique among the inputs of the request.
        datatype_or_array: name of the datatype, such as ``"FP32"``, or an array that gives datatype and shape. What is
            no array is given to `numpy.asarray`; text and bytes become BYTES. An `ObjRef` makes a reference.
        shape: dimensions, none negative; not with an array.
        datatype: the datatype that the array must have; ``"BF16"`` rounds a float32 array to nearest, ties to even.
        contents: the elements; not with an array.
        parameters: of this tensor alone.

    Raises:
        InvalidInput: datatype, shape and elements do not fit each other; the message names the input and both numbers.
    """

    def __new__(
        cls,
        name: str,
        datatype_or_array: object | None = None,
        shape: Sequence[SupportsIndex] | None = None,
        *,
        datatype: str | None = None,
        contents: Contents | None = None,
        parameters: dict[str, _Parameter] | None = None,
    ) -> InferInput: ...
    @property
    def name(self) -> str:
        """Its name."""

    @property
    def datatype(self) -> str:
        """One of the protocol's 14, such as ``"FP32"``."""

    @property
    def shape(self) -> list[int]:
        """Its dimensions; empty for a scalar. A new list each time."""

    @property
    def contents(self) -> Contents:
        """The elements; the same object each time."""

    @property
    def parameters(self) -> dict[str, _Parameter]:
        """Parameters of this tensor alone."""

    @property
    def objref(self) -> ObjRef | None:
        """The reference that the caller sent; ``None`` if the input is not, and was not, one.

        The runtime puts the object in its place where that is an array or bytes: then datatype, shape and elements are
        the object's, and the parameter ``objref`` is the reference's text. Where the object is a dict, the input is the
        reference itself, and the parameter ``objref`` is true: read it with ``context.objects.get``.

        Raises:
            InvalidInput: the input says that it is a reference, and is none.
        """

    def as_numpy(self) -> _Array:
        """The tensor as a read-only array with shape `shape`; the same object each time.

        For the fixed-size datatypes it is a view on the bytes that were received, and keeps them alive by itself. BYTES
        give an ``object`` array of `bytes`, BF16 a float32 array: those are copies.
        """

    def _value(self) -> _Array | ObjRef: ...
    def __eq__(self, value: object, /) -> bool: ...

@final
class ModelInferRequest:
    """A request.

    Args:
        model_name: what the caller called; empty if the capability was named by other means.
        inputs: the input tensors, with different names.
        id: the caller's id; empty if none was given.
        model_version: what the caller asked for; empty leaves the choice to the replica.
        parameters: of the request.
        outputs: names of the outputs that are wanted; empty is all.

    Raises:
        InvalidInput: two inputs have the same name.
    """

    def __new__(
        cls,
        model_name: str = "",
        inputs: Sequence[InferInput] | None = None,
        *,
        id: str = "",  # noqa: A002 - the protocol's name
        model_version: str = "",
        parameters: dict[str, _Parameter] | None = None,
        outputs: Sequence[str] | None = None,
    ) -> ModelInferRequest: ...
    @property
    def model_name(self) -> str:
        """What the caller called; empty if the capability was named by other means."""

    @property
    def model_version(self) -> str:
        """The version that the caller asked for; empty if it left the choice to the replica."""

    @property
    def id(self) -> str:
        """The caller's id; empty if none was given."""

    @property
    def parameters(self) -> dict[str, _Parameter]:
        """Parameters of the request; the same dict as `Context.parameters`."""

    @property
    def inputs(self) -> list[InferInput]:
        """The input tensors, in the caller's order."""

    @property
    def outputs(self) -> list[str]:
        """Names of the outputs that are wanted; empty is all. The runtime leaves the others out by itself."""

    def input(self, name: str) -> InferInput:
        """The input with this name.

        Raises:
            InvalidInput: there is none; the message names those that there are.
        """

@final
class InferOutput:
    """One output tensor of a response; made by `ModelInferResponse.add_output`."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def datatype(self) -> str:
        """One of the protocol's 14, such as ``"FP32"``."""

    @property
    def shape(self) -> list[int]:
        """Its dimensions; empty for a scalar. A new list each time."""

    @property
    def contents(self) -> Contents:
        """The elements."""

    @contents.setter
    def contents(self, contents: Contents) -> None: ...
    @property
    def parameters(self) -> dict[str, _Parameter]:
        """Parameters of this tensor alone."""

    @property
    def objref(self) -> ObjRef | None:
        """The reference that it is, or that its elements were resolved from; ``None`` if it is neither.

        Raises:
            ValueError: it says that it is a reference, and is none.
        """

    def as_numpy(self) -> _Array:
        """The tensor as a read-only array with shape `shape`; BYTES as ``object``, BF16 as float32.

        Raises:
            ValueError: the contents do not fit datatype and shape.
        """

    def _value(self) -> _Array | ObjRef: ...
    def __eq__(self, value: object, /) -> bool: ...

@final
class ModelInferResponse:
    """A response.

    The runtime fills in model name, version and id, so that a handler need not.

    Args:
        model_name: what the caller called.
        id: the request's id.
        model_version: the version that served it.
        parameters: of the response.
    """

    model_name: str
    id: str
    model_version: str

    def __new__(
        cls,
        model_name: str = "",
        id: str = "",  # noqa: A002 - the protocol's name
        model_version: str = "",
        parameters: dict[str, _Parameter] | None = None,
    ) -> ModelInferResponse: ...
    @property
    def outputs(self) -> list[InferOutput]:
        """The output tensors, with different names."""

    @property
    def parameters(self) -> dict[str, _Parameter]:
        """Parameters of the response."""

    def add_output(
        self,
        name: str,
        datatype_or_array: object | None = None,
        shape: Sequence[SupportsIndex] | None = None,
        *,
        datatype: str | None = None,
        parameters: dict[str, _Parameter] | None = None,
    ) -> InferOutput:
        """Add an output: ``add_output("y", array)``, or ``add_output("y", "FP32", [2, 3])`` and then `contents`.

        An array of a fixed-size datatype is held, and read when the response is sent: that is before ``return`` gives
        up control, or before a generator goes on. BYTES and BF16 are converted here.

        Args:
            name: unique among the outputs of the response.
            datatype_or_array: name of the datatype, such as ``"FP32"``, or an array that gives datatype and shape. What
                is no array is given to `numpy.asarray`; text and bytes become BYTES, a `str` as UTF-8. An `ObjRef`
                makes a reference.
            shape: dimensions, none negative; not with an array.
            datatype: the datatype that the array must have; ``"BF16"`` rounds a float32 array to nearest, ties to even.
            parameters: of this tensor alone.

        Raises:
            ValueError: an array that no datatype can hold or of another datatype than asked for, or no possible shape;
                the message names the output and the fix. Where the handler does not catch it, its caller gets
                `HandlerError`.
        """

    def output(self, name: str) -> InferOutput:
        """The output with this name.

        Raises:
            KeyError: there is none; the message names those that there are.
        """

@final
class Buffer:
    """Read-only bytes of a tensor: the base object of the arrays that `InferInput.as_numpy` gives."""

    def __len__(self) -> int: ...

# === the object plane ===

@final
class ObjRef:
    """A reference to an object: small, hashable, equal to its copies, and of no use to who was not given it.

    As a text it is ``objref:<store>-<index>-<generation>``, hexadecimal, of 49 characters. It stays what it is when its
    object is gone: using it raises `NotFound`, and it never means another object. As an input or output it is BYTES
    with the shape ``[1]`` and the parameter ``objref`` = true.

    Args:
        text: what `str` gives of one.

    Raises:
        InvalidInput: the text is no reference.
    """

    def __new__(cls, text: str) -> ObjRef: ...
    @property
    def store(self) -> str:
        """The store that it was made in, as 16 hexadecimal digits."""

    def __eq__(self, value: object, /) -> bool: ...
    def __hash__(self) -> int: ...
    def __reduce__(self) -> tuple[type[ObjRef], tuple[str]]: ...

@final
class ObjectPlane:
    """The worker's end of the object plane; apps use `anyserve.objects.Objects`, which is built on it.

    An object is a list of tensors and one of three kinds: ``"array"`` and ``"bytes"`` (one tensor of UINT8) have one
    part, named ``"value"``; ``"dict"`` has one for each of its entries, by name. Names, datatypes, shapes and
    parameters of the parts come back as they were given; a part that is to be read as `bytes` has the parameter
    ``bytes`` = true.
    """

    def create(
        self,
        kind: Literal["array", "bytes", "dict"],
        parts: list[InferOutput],
        key: str | None,
        ttl_s: float,
        cacheable: bool,
        durable: bool,
        checksum: bool,
    ) -> ObjRef:
        """Copy tensors into a new object. Blocks, without the GIL.

        Args:
            kind: what the parts are.
            parts: the tensors, at least one, with different names.
            key: a name to look it up by; ``None`` for none.
            ttl_s: seconds that it lives, above 0.
            cacheable: it may be evicted.
            durable: it is to outlive this replica.
            checksum: what is read is compared with what was written.

        Raises:
            ValueError: a part whose contents do not fit its datatype and shape.
            ObjectStoreFull: there is no room; nothing was stored.
            Unsupported: there is no object store, or none for durable objects.
        """

    def get(
        self, objref: ObjRef, timeout_s: float | None
    ) -> tuple[Literal["array", "bytes", "dict"], list[InferInput]]:
        """Give kind and parts of an object. Blocks, without the GIL.

        Returns:
            The kind, and the parts in their order, whose arrays are views on shared memory that keep it by themselves.

        Raises:
            NotFound: there is no such object.
            DeadlineExceeded: the time was over before it was here.
            Unavailable: the replica that has it does not answer.
            ObjectStoreFull: it is elsewhere, and there is no room for a copy here.
        """

    def lookup(self, key: str, timeout_s: float | None) -> ObjRef | None:
        """Give the newest object with a key, if there is one. Blocks, without the GIL.

        Raises:
            DeadlineExceeded: the time was over before the answer was here.
        """

    def delete(self, objref: ObjRef) -> bool:
        """Delete an object; false if there was none. Blocks, without the GIL."""

    def stat(self, objref: ObjRef) -> dict[str, Any]:
        """Describe an object, by the fields of `anyserve.objects.ObjectStat`. Blocks, without the GIL.

        Raises:
            NotFound: there is no such object.
        """

    def usage(self) -> dict[str, Any]:
        """Describe the store, by the fields of `anyserve.objects.StoreUsage`. Blocks, without the GIL."""

# === inside a handler ===

@final
class Context:
    """What a handler knows about the call it is in; its second argument.

    The worker makes one for every request; tests of handlers may make one too, of a call that nobody cancels.

    Args:
        request_id: the caller's id.
        capability: what the handler serves.
        parameters: of the request.
        headers: metadata of the call, lower-case names.
        timeout_s: seconds that are left; ``None`` is no deadline.
    """

    def __new__(
        cls,
        *,
        request_id: str = "",
        capability: dict[str, _Parameter] | None = None,
        parameters: dict[str, _Parameter] | None = None,
        headers: dict[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Context: ...
    @property
    def request_id(self) -> str:
        """The caller's id; where none was given, a number that this worker has not used before."""

    @property
    def capability(self) -> dict[str, _Parameter]:
        """The capability that matched. A copy."""

    @property
    def parameters(self) -> dict[str, _Parameter]:
        """Parameters of the request."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Metadata of the call, lower-case names; a repeated header is joined with ``", "``."""

    @property
    def attempt(self) -> int:
        """1 for the first time that the request is sent to a worker."""

    @property
    def cancelled(self) -> bool:
        """Whether the caller left. It costs a read of memory: a long handler may ask often, and stop."""

    @property
    def log(self) -> LoggerAdapter[Logger]:
        """The logger ``anyserve.handler``, with `request_id` in each record."""

    @property
    def objects(self) -> Objects:
        """The object plane: values that all workers of the replica share.

        Raises:
            Unsupported: this replica has no object store (``--object-store 0``), or the context was made by a test.
        """

    def remaining(self) -> float | None:
        """Seconds until the deadline, at least 0; ``None`` if there is none."""

    def call(
        self,
        capability: str | Mapping[str, _Parameter],
        inputs: Inputs,
        *,
        timeout_s: float | None = None,
        id: str | None = None,  # noqa: A002 - the protocol's name
        parameters: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        outputs: Sequence[str] | None = None,
        version: str = "",
    ) -> InferResult:
        """Call another capability and wait for its answer; for handlers that are not async.

        It goes through the replica's own dispatcher if anything here serves it, and by the API server to another
        replica otherwise. The headers ``traceparent``, ``tracestate``, ``x-request-id``, ``x-tenant``, ``x-priority``
        and ``x-anyserve-session`` of the handler's own request go along. The call ends with that request: when its
        caller leaves, its deadline passes or its worker dies, the call is cancelled. What interrupts the wait cancels
        it, too. In a handler of batches it is made with the context of one of the requests, and belongs to that one.

        Args:
            capability: a capability such as ``{"type": "embed"}``, a model name, or a selector such as
                ``"type=embed,size>=7"``.
            inputs: values by the names of the inputs, as `Client.infer` takes them. Python's numbers get the datatype
                that the app's own capabilities declare; for those of other apps, INT64, FP64 or BOOL.
            timeout_s: seconds to wait, above 0; the deadline of the handler's request counts if it is sooner.
            id: comes back in the response.
            parameters: `str`, `bool`, `float` or 64-bit `int` by name.
            headers: metadata of the call; they win over those that would go along.
            outputs: names of the outputs that are wanted; by default all.
            version: of the model; by default the replica chooses.

        Returns:
            The outputs by name; ``.response`` has the rest.

        Raises:
            InvalidInput: an input that no tensor can be made of or that is refused, or a chain of more than 16 calls.
            Unsupported: everybody who could serve it waits for it (the message names the cycle), the capability
                streams, or the context was made by a test.
            Cancelled: the handler's request is over, or its caller has left.
            Overloaded: 256 calls of this worker are open.
            RuntimeError: in an async handler, whose event loop it would block.
            AnyServeError: any other of `anyserve.errors`, as the other handler or the replica has it.
        """

    def call_stream(
        self,
        capability: str | Mapping[str, _Parameter],
        inputs: Inputs,
        *,
        timeout_s: float | None = None,
        id: str | None = None,  # noqa: A002 - the protocol's name
        parameters: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        outputs: Sequence[str] | None = None,
        version: str = "",
    ) -> ResultStream:
        """Call a capability and give its answers as they come; for handlers that are not async.

        Arguments are those of `call`; `timeout_s` holds for the whole stream. The call is made at once. The other
        handler waits when what was not read of it is a megabyte. A capability that does not stream answers once.

        Returns:
            An iterator of `InferResult`, which raises what `call` does. Closing it, leaving its ``with`` or dropping
            it gives up what is not done.
        """

    async def acall(
        self,
        capability: str | Mapping[str, _Parameter],
        inputs: Inputs,
        *,
        timeout_s: float | None = None,
        id: str | None = None,  # noqa: A002 - the protocol's name
        parameters: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        outputs: Sequence[str] | None = None,
        version: str = "",
    ) -> InferResult:
        """Call another capability and await its answer; for async handlers, on the event loop that they run on.

        Arguments, result and exceptions are those of `call`. Cancelling the task that awaits it cancels the call.
        """

    def acall_stream(
        self,
        capability: str | Mapping[str, _Parameter],
        inputs: Inputs,
        *,
        timeout_s: float | None = None,
        id: str | None = None,  # noqa: A002 - the protocol's name
        parameters: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        outputs: Sequence[str] | None = None,
        version: str = "",
    ) -> AsyncResultStream:
        """Call a capability and give its answers as they come; for async handlers, on the event loop they run on.

        Arguments and exceptions are those of `call_stream`.

        Returns:
            An asynchronous iterator of `InferResult`. Closing it, leaving its ``async with``, or cancelling the task
            that reads from it gives up what is not done.
        """

    def _make_call(self, asked: Call, stream: bool, awaited: bool) -> _MadeCall: ...

@final
class _MadeCall:
    """A call that a handler has made. Dropping it gives it up."""

    def __iter__(self) -> Self: ...
    def __next__(self) -> ModelInferResponse: ...
    def start_next(self, future: Future[ModelInferResponse | None]) -> None:
        """Ask for the next result, which goes to a future of the worker's event loop; ``None`` is the end.

        Raises:
            RuntimeError: the future belongs to another loop.
        """

    def close(self) -> None:
        """Give the call up, if it is not over. Who waits for a result gets the end."""

@final
class Stream:
    """Sends the responses of one request; the third argument of a handler with ``stream=True``."""

    def send(self, response: object) -> None:
        """Send one response, now. Blocks while the caller is behind, with the interpreter's lock released.

        Args:
            response: a `ModelInferResponse`, or a dict from output names to arrays.

        Raises:
            Cancelled: the caller left.
            RuntimeError: in an async handler, whose event loop it would block.
            ValueError: the response does not fit its own shapes.
        """

    async def asend(self, response: object) -> None:
        """Send one response; awaits while the caller is behind.

        Args:
            response: a `ModelInferResponse`, or a dict from output names to arrays.

        Raises:
            asyncio.CancelledError: the caller left.
            RuntimeError: in a handler that is not async.
            ValueError: the response does not fit its own shapes.
        """

    def _offer(self, response: object) -> Future[None] | None: ...

# === the worker process ===

def run_worker(socket: str, worker_id: int, token: str, handlers: Sequence[Handler], life: Life) -> int:
    """Start, and serve until the runtime says drain and everything is answered, or closes the socket.

    The order is: hello and welcome, `Life.start`, ready, requests, `Life.stop`. Between requests the runtime may say
    sleep and wake. The hooks run in the calling thread; meanwhile the socket is read, so that pings are answered. If
    the runtime goes during one of them but the last, the process ends at once.

    Where every handler is sync with ``concurrency=1``, the calling thread runs them all, one request at a time.
    Otherwise each sync handler has its threads, and async ones share one event loop in the calling thread. The process
    ends at once if the runtime goes while handlers run, or breaks a rule of the protocol (exit code 1).

    A handler with ``max_batch_size`` is called once for all requests of a batch. If that raises, it is called again
    with either half of them, and so on, so that only those fail that make it raise.

    Args:
        socket: path of the runtime's socket.
        worker_id: the number that the runtime gave this worker.
        token: the secret that the runtime gave this worker.
        handlers: the rows of the worker's group.
        life: what it does besides handling requests.

    Returns:
        The exit code: 0 at the end of all this; 2 if the start failed, which the runtime was told; 3 if it could not
        sleep or wake.

    Raises:
        OSError: the runtime cannot be reached.
    """

def check_upgrades(rules: Sequence[str]) -> str | None:
    """Say what is wrong with upgrade rules, each ``key=value -> key=value``; ``None`` if nothing is."""

def report_start_failure(
    socket: str,
    worker_id: int,
    token: str,
    kind: Literal["target", "import", "app", "internal"],
    message: str,
    traceback: str,
) -> None:
    """Tell the runtime why this worker cannot start.

    Args:
        socket: path of the runtime's socket.
        worker_id: the number that the runtime gave this worker.
        token: the secret that the runtime gave this worker.
        kind: whose mistake it is: ``"internal"`` is a defect of ours, the others are the user's to fix.
        message: what is wrong, and the fix.
        traceback: of the user's code; empty where none of it raised.

    Raises:
        OSError: the runtime cannot be reached.
    """

@final
class _Bridge:
    def attach(self, event_loop: AbstractEventLoop, over: Future[None]) -> None: ...
    def fileno(self) -> int: ...
    def drain(self) -> None: ...
    def flush(self) -> None: ...
    def terminate(self) -> None: ...

@final
class _Exchange:
    def finish(self, value: object) -> None: ...
    def fail(self, raised: BaseException) -> None: ...
    def send(self, response: object) -> Future[None] | None: ...

@final
class _BatchExchange:
    def next(self) -> tuple[Any, ...] | None: ...
    def finish(self, answers: object) -> None: ...
    def fail(self, raised: BaseException) -> None: ...

@final
class _Server:
    def run(self) -> Never: ...

@final
class _Terminate:
    def __call__(self, _signal: object, _frame: object) -> None: ...

@final
class _Template:
    """A template's connection to its runtime. The kernel ends the process when the runtime ends.

    Args:
        socket: path of the runtime's socket.
        token: the secret that the runtime gave this template.

    Raises:
        OSError: the runtime cannot be reached.
    """

    def __new__(cls, socket: str, token: str) -> _Template: ...
    def manifest(self, groups: Iterable[Group], files: Sequence[str], no_fork: str) -> None:
        """Tell what the app has.

        Args:
            groups: the app's worker groups.
            files: absolute paths of what it was loaded from.
            no_fork: why this process cannot fork workers; empty if it can.

        Raises:
            ValueError: a group has a value that no group can have.
            OSError: the runtime has gone.
        """

    def failed(self, kind: Literal["target", "import", "app", "internal"], message: str, traceback: str) -> None:
        """Tell why the app cannot be loaded; see `report_start_failure`.

        Raises:
            OSError: the runtime has gone.
        """

    def next(self) -> _Fork | None:
        """Wait for the next order; ``None`` when the runtime has gone.

        Raises:
            ValueError: the runtime broke a rule of the socket.
        """

    def forked(self, worker: int, pid: int, failed: str) -> None:
        """Answer an order.

        Args:
            worker: its number.
            pid: the worker's process; 0 if there is none.
            failed: why there is none; empty if there is one.

        Raises:
            OSError: the runtime has gone.
        """

    def adopted(self, within_s: float) -> bool:
        """Wait until this process is the runtime's child, and have the kernel end it when the runtime ends.

        Returns:
            Whether it is.
        """

    def close(self) -> None:
        """Close the socket in this process; those that it was forked from or has forked keep it."""

@final
class _Fork:
    @property
    def worker(self) -> int: ...
    @property
    def group(self) -> str: ...
    @property
    def socket(self) -> str: ...
    @property
    def token(self) -> str: ...
    @property
    def stdout(self) -> str: ...
    @property
    def stderr(self) -> str: ...
    @property
    def environment(self) -> list[tuple[str, str]]: ...

# === client: what `anyserve.client` is built on ===

def codes() -> list[tuple[str, int, int, str]]:
    """Give the closed set of codes: of each its name, gRPC status, HTTP status and class in `anyserve.errors`."""

@final
class Call:
    """One inference, checked and ready to be sent as often as wanted.

    Args:
        model: name of the model; with `capability` only what the response echoes.
        inputs: ``(name, datatype, shape, data, parameters)`` of each, where `data` is a C-contiguous buffer of raw
            elements, an `InferInput` or, for BYTES, a list of `bytes` and `str`. Large buffers are not copied: don't
            write to them before the call is done.
        version: of the model; empty leaves the choice to the server.
        id: comes back in the response.
        capability: keys and values that the serving capability must have.
        outputs: names of the outputs that are wanted; empty is all.
        parameters: of the request.
        headers: metadata to send along.
        timeout_s: seconds the caller waits, above 0.

    Raises:
        InvalidInput: an input whose bytes are not what datatype and shape say, or a value that cannot be sent.
    """

    def __new__(
        cls,
        model: str,
        inputs: Sequence[tuple[str, str, Sequence[int], Any, dict[str, Any] | None]],
        *,
        version: str = "",
        id: str = "",  # noqa: A002
        capability: dict[str, Any] | None = None,
        outputs: Sequence[str] = ...,
        parameters: dict[str, Any] | None = None,
        headers: Sequence[tuple[str, str]] = ...,
        timeout_s: float | None = None,
    ) -> Call: ...

@final
class Client:
    """A way to one server, or to whichever replica serves a call, for any number of threads and event loops.

    It works across forks too. Methods that begin with ``start_`` return at once; the answer goes to the future, through
    the mailbox that the future's loop watches. The others wait, without the GIL.

    Args:
        endpoint: ``host:port``, or ``http://…`` or ``https://…``; either this or `api_servers`.
        api_servers: the endpoints of those who name replicas.
        capability: what is asked for where a question does not say it.
        tls_ca: PEM certificates of those who may have signed the server's; by default the system's.
        tls_identity: own certificate and key, both PEM.

    Raises:
        InvalidInput: an endpoint or certificates that cannot be used.
    """

    def __new__(
        cls,
        endpoint: str | None = None,
        *,
        api_servers: Sequence[str] = ...,
        capability: dict[str, Any] | None = None,
        tls_ca: bytes | None = None,
        tls_identity: tuple[bytes, bytes] | None = None,
    ) -> Client: ...
    @property
    def endpoint(self) -> str | None:
        """The server as ``host:port``, with ``https://`` in front if the connection is encrypted.

        ``None`` while no replica was found.
        """

    @property
    def replica_id(self) -> str | None:
        """The name of the replica that was found last; ``None`` where none was looked for."""

    def infer(self, call: Call) -> ModelInferResponse:
        """Send a call and wait for its answer."""

    def start_infer(self, call: Call, future: Future[ModelInferResponse], mailbox: Mailbox) -> Pending:
        """Send a call."""

    def stream(self, call: Call) -> Responses:
        """Give the answers to a call, one by one. It is sent when the first is asked for."""

    def live(self, timeout_s: float | None) -> bool:
        """Tell whether the server lives."""

    def start_live(self, timeout_s: float | None, future: Future[bool], mailbox: Mailbox) -> Pending:
        """Ask whether the server lives."""

    def ready(self, model: tuple[str, str] | None, timeout_s: float | None) -> bool:
        """Tell whether the server or a model, ``(name, version)``, takes requests."""

    def start_ready(
        self, model: tuple[str, str] | None, timeout_s: float | None, future: Future[bool], mailbox: Mailbox
    ) -> Pending:
        """Ask whether the server or a model takes requests."""

    def metadata(
        self, model: tuple[str, str], timeout_s: float | None, capability: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Give name, versions, platform, inputs and outputs of a model, ``(name, version)``.

        Where a replica is to be found, it is one that serves `capability`.
        """

    def start_metadata(
        self,
        model: tuple[str, str],
        timeout_s: float | None,
        future: Future[dict[str, Any]],
        mailbox: Mailbox,
        capability: dict[str, Any] | None = None,
    ) -> Pending:
        """Ask what a model is like."""

    def close(self) -> None:
        """Let go of the connection. Calls under way end as they would have; new ones are refused."""

@final
class Responses:
    """The answers to one call, in order. Several threads may ask; each answer goes to one of them."""

    def __iter__(self) -> Self: ...
    def __next__(self) -> ModelInferResponse: ...
    def start_next(self, future: Future[ModelInferResponse | None], mailbox: Mailbox) -> Pending:
        """Ask for the next answer; ``None`` is the end."""

    def close(self) -> None:
        """End the stream and cancel what is not done. Who waits for an answer gets the end."""

@final
class Mailbox:
    """The answers for the futures of one event loop, which calls `deliver` when `fileno` is readable."""

    def __new__(cls) -> Mailbox: ...
    def fileno(self) -> int:
        """The descriptor to watch."""

    def deliver(self) -> None:
        """Hand every answer to its future; futures that are done are left alone."""

@final
class Pending:
    """A call under way for an event loop."""

    def cancel(self) -> None:
        """Cancel the call on the server. After its end nothing happens."""

# === commands ===

def serve(options: dict[str, Any], on_event: Callable[[str, dict[str, Any]], None]) -> int:
    """Run a replica in this process until SIGTERM or SIGINT. Blocks, without the GIL; a second signal ends the process.

    Args:
        options: the options of `anyserve serve` by name (``grace_s`` for ``--grace-s``); a missing one was not given,
            and comes from the file that ``config`` names, or its default.
        on_event: called from other threads with a kind and its fields: ``worker`` (name, state, pid, detail),
            ``serving`` (endpoint, capabilities, models, inputs, workers), ``draining`` (in_flight, grace_s),
            ``stopped`` (clean, aborted).

    Returns:
        The exit code: 0 if every request was answered, 1 if some were aborted at the end of the grace.

    Raises:
        StartError: what was asked for cannot be served; the message has the fix.
        TypeError: an option that there is not, or of another type.
    """

def serve_api_server(options: dict[str, Any], on_event: Callable[[str, dict[str, Any]], None]) -> int:
    """Run an API server in this process until SIGTERM or SIGINT. Blocks, without the GIL; a second one ends it.

    Args:
        options: the options of `anyserve api-server` by name (``lease_s`` for ``--lease-s``); a missing one was not
            given, and comes from the file that ``config`` names, or its default.
        on_event: called from other threads with a kind and its fields: ``listening`` (endpoint, store, policy),
            ``draining`` (in_flight, grace_s), ``stopped`` (clean, aborted).

    Returns:
        The exit code: 0 if every request was answered, 1 if some were aborted at the end of the grace.

    Raises:
        StartError: it cannot be started as asked; the message has the fix.
        TypeError: an option that there is not, or of another type.
    """

def bench(args: list[str]) -> int:
    """Run `anyserve bench` with these arguments, without the GIL.

    Returns:
        The exit code; 2 means that the arguments are wrong.
    """
