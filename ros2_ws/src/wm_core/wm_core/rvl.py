"""RVL, the lossless run-length and variable-length coding of 16-bit depth images.

Wilson, Fast Lossless Depth Image Compression, ISS 2017. An image is a list of runs: the number of zeros, the number of
measurements, and these as differences from the one before, zigzag coded. Each number is a string of nibbles: three
bits of it, from the lowest on, and a fourth that is set if more follow. Eight nibbles fill a little-endian word from
its top.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SHIFTS = np.arange(28, -1, -4, dtype=np.uint32)
_MAX_NIBBLES = 11  # of a 32-bit number


def _numbers(data: bytes | bytearray | memoryview | NDArray[np.uint8]) -> NDArray[np.int64]:
    raw = np.frombuffer(data, dtype=np.uint8)
    words = np.concatenate([raw, np.zeros(-len(raw) % 4, np.uint8)]).view("<u4")
    nibbles = ((words[:, None] >> _SHIFTS) & 15).reshape(-1).astype(np.int64)
    ends = np.flatnonzero(nibbles < 8)
    if not len(ends):
        return np.zeros(0, np.int64)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if int(lengths.max()) > _MAX_NIBBLES:
        raise ValueError(f"RVL: a number of {int(lengths.max())} nibbles, expected at most {_MAX_NIBBLES}")
    nibbles = nibbles[: ends[-1] + 1]
    place = np.arange(len(nibbles)) - np.repeat(starts, lengths)
    return np.add.reduceat((nibbles & 7) << (3 * place), starts)


def decode_rvl(data: bytes | bytearray | memoryview | NDArray[np.uint8], width: int, height: int) -> NDArray[np.uint16]:
    """Depth (height, width) uint16 in the sender's units, 0 = no measurement, of an RVL stream without its size.

    Raises:
        ValueError: the stream ends early, or its runs do not fill the image exactly.
    """
    count = width * height
    numbers = _numbers(data)
    runs: list[tuple[int, int, int]] = []
    at = pixel = 0
    while pixel < count:
        if at + 1 >= len(numbers):
            raise ValueError(f"RVL: the data end after {pixel} pixels, expected {count} ({width}x{height})")
        zeros, measured = int(numbers[at]), int(numbers[at + 1])
        at, pixel = at + 2, pixel + zeros
        if pixel + measured > count or at + measured > len(numbers) or zeros + measured == 0:
            raise ValueError(
                f"RVL: a run of {zeros} zeros and {measured} measurements ends at pixel {pixel + measured}, "
                f"expected at most {count} ({width}x{height}) and data for all"
            )
        runs.append((at, pixel, measured))
        at, pixel = at + measured, pixel + measured
    depth = np.zeros(count, np.uint16)
    table = np.array(runs, dtype=np.int64).reshape(-1, 3)
    lengths = table[:, 2]
    within = np.arange(int(lengths.sum())) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    zigzag = numbers[np.repeat(table[:, 0], lengths) + within]
    steps = (zigzag >> 1) ^ -(zigzag & 1)
    depth[np.repeat(table[:, 1], lengths) + within] = (np.cumsum(steps) & 0xFFFF).astype(np.uint16)
    return depth.reshape(height, width)
