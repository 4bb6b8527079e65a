"""Payloads that tell whether they are whole, and which one they are."""

import zlib

import numpy as np

HEAD = 16
MIB = 1 << 20


def payload(seed: int, size: int = MIB) -> np.ndarray:
    """Bytes that belong to a seed and to no other: the seed, a checksum of the rest, the rest by chance."""
    rest = np.random.default_rng(seed).bytes(size - HEAD)
    head = seed.to_bytes(8, "little") + zlib.crc32(rest).to_bytes(8, "little")
    return np.frombuffer(head + rest, np.uint8)


def seed_of(data: np.ndarray) -> int:
    """The seed of a payload.

    Raises:
        AssertionError: it is torn: its bytes are of more than one payload, or of none.
    """
    head, rest = bytes(data[:HEAD]), memoryview(data)[HEAD:]
    assert zlib.crc32(rest) == int.from_bytes(head[8:], "little"), f"{len(data)} bytes are torn"
    return int.from_bytes(head[:8], "little")


def check(data: np.ndarray, seed: int) -> None:
    """Whether bytes are the payload of a seed, and whole."""
    found = seed_of(data)
    assert found == seed, f"the payload of {found} instead of {seed}"
