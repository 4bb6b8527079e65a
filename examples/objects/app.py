"""Arrays that are stored once: what travels afterwards is a reference of 49 characters, or a key."""

import numpy as np
import numpy.typing as npt

from anyserve import AnyServe, Context, ObjRef, TensorSpec
from anyserve.errors import NotFound

app = AnyServe()

Floats = npt.NDArray[np.float32]

MIB = 1 << 20


@app.capability(type="store")
def store(image: Floats, key: str, context: Context) -> dict[str, ObjRef]:
    """Copy an image into memory that all workers share, for a minute, and answer with the reference."""
    return {"ref": context.objects.create(image, key=key, ttl_s=60)}


@app.capability(type="mean", inputs=[TensorSpec("image", "FP32", [-1, -1])])
def mean(image: Floats) -> dict[str, list[float]]:
    """Take an image. Who sends a reference instead has this called with the array, in whichever worker it is."""
    return {"mean": [float(image.mean())]}


@app.capability(type="mean-of")
def mean_of(key: str, context: Context) -> dict[str, list[float]]:
    """Look an image up by its key. `get` gives a view on the shared memory: nothing is copied."""
    ref = context.objects.lookup(key)
    if ref is None:
        raise NotFound(f"there is no image {key!r}")
    return {"mean": [float(context.objects.get(ref).mean())]}


@app.capability(type="forget")
def forget(image: ObjRef, context: Context) -> dict[str, list[bool]]:
    """Delete an image. A parameter of the type `ObjRef` gets the reference that the caller sent, not the array."""
    return {"forgotten": [context.objects.delete(image)]}


@app.capability(type="usage", inputs=[])
def usage(context: Context) -> dict[str, list[int]]:
    """Tell how many objects there are, and how much room."""
    told = context.objects.usage()
    return {"objects": [told.objects], "capacity_mib": [told.capacity // MIB]}
