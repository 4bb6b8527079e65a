"""A handler that answers with as many bytes as it is asked for."""

import numpy as np

from anyserve import AnyServe

app = AnyServe()


@app.capability(type="large")
def large(size: np.ndarray) -> dict[str, np.ndarray]:
    """Zeros."""
    return {"zeros": np.zeros(int(size[0]), dtype=np.uint8)}
