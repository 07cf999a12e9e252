"""What ``wm doctor`` made of the frames that it looked at."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wm_perception.types import Frame, PerceptionResult


@dataclass
class Seen:
    """What was made of the frames: for the picture."""

    frame: Frame | None = None
    result: PerceptionResult | None = None
    depth_m: NDArray[np.float32] | None = None
    color: NDArray[np.uint8] | None = None
