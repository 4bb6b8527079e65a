"""What is asked of every peer: which request, how many at once."""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["small", "large", "tokens", "batch"]

SMALL_ELEMENTS = 16
LARGE_ELEMENTS = 1 << 20
TOKENS = 1000


@dataclass(frozen=True)
class Workload:
    """One request, repeated in a closed loop with ``in_flight`` at a time."""

    kind: Kind
    in_flight: int

    @property
    def key(self) -> str:
        """The workload's name in results and in ``--only``."""
        return f"{self.kind}@{self.in_flight}"

    @property
    def elements(self) -> int:
        """FP32 elements in the request."""
        return LARGE_ELEMENTS if self.kind == "large" else SMALL_ELEMENTS


WORKLOADS = (
    Workload("small", 1),
    Workload("small", 16),
    Workload("small", 64),
    Workload("large", 4),
    Workload("tokens", 64),
    Workload("batch", 1),
    Workload("batch", 64),
)
