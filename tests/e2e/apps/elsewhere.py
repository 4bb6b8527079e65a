"""Handlers that store, find and delete objects, wherever they are."""

import numpy as np

from anyserve import AnyServe, Context, ModelInferRequest

app = AnyServe()


def text(request: ModelInferRequest, name: str) -> str:
    return request.input(name).as_numpy()[0].decode()


@app.capability(type="put")
def put(request: ModelInferRequest, context: Context):
    return {"ref": context.objects.create(request.input("x").as_numpy())}


@app.capability(type="keep")
def keep(request: ModelInferRequest, context: Context):
    return {"ref": context.objects.create(request.input("x").as_numpy(), key="kept", durable=True)}


@app.capability(type="get")
def get(request: ModelInferRequest, context: Context):
    return {"x": context.objects.get(text(request, "ref"))}


@app.capability(type="find")
def find(request: ModelInferRequest, context: Context):
    return {"x": context.objects.get(context.objects.lookup(text(request, "key")))}


@app.capability(type="delete")
def delete(request: ModelInferRequest, context: Context):
    return {"deleted": np.array([context.objects.delete(text(request, "ref"))])}


@app.capability(type="usage")
def usage(request: ModelInferRequest, context: Context):
    return {"objects": np.array([context.objects.usage().objects])}


@app.capability(type="total")
def total(x: np.ndarray):
    return {"total": np.array([x.astype(np.float64).sum()])}
