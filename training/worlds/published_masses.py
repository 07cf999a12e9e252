"""Published masses and sizes of everyday objects, by class.

Masses and sizes: Calli, Walsman, Singh, Srinivasa, Abbeel, Dollar 2015, "Benchmarking in Manipulation Research: The YCB
Object and Model Set" (arXiv:1502.03143), table of the objects. Only objects whose outline these sizes give. Masses were
compared with a public listing of that table; sizes and fill factors were written down from memory and estimated by
hand, and have not been checked against it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class PublishedMass:
    """An object.

    Attributes:
        name: in the object set; class_name: of the vocabulary, or "object".
        mass: [kg]; size: full sizes [m]; filled: volume of the outline over that of the bounds.
    """

    name: str
    class_name: str
    mass: float
    size: tuple[float, float, float]
    filled: float

    @property
    def log_density(self) -> float:
        """Natural logarithm of mass over the volume of the outline [kg/m^3]."""
        return float(np.log(self.mass / (self.filled * np.prod(self.size))))


_ROUND = np.pi / 4.0
_BALL = np.pi / 6.0
_BOTTLE = 0.8 * np.pi / 4.0  # the shoulder and the neck
_HALF = 0.5  # of cutlery and tools, whose outline tapers

PUBLISHED: tuple[PublishedMass, ...] = (
    PublishedMass("cracker box", "box", 0.411, (0.060, 0.158, 0.210), 1.0),
    PublishedMass("sugar box", "box", 0.514, (0.038, 0.089, 0.175), 1.0),
    PublishedMass("pudding box", "box", 0.187, (0.035, 0.110, 0.089), 1.0),
    PublishedMass("gelatin box", "box", 0.097, (0.028, 0.085, 0.073), 1.0),
    PublishedMass("potted meat can", "box", 0.370, (0.050, 0.097, 0.082), 1.0),
    PublishedMass("wood block", "box", 0.729, (0.085, 0.085, 0.200), 1.0),
    PublishedMass("foam brick", "box", 0.028, (0.050, 0.075, 0.050), 1.0),
    PublishedMass("Rubik's cube", "box", 0.094, (0.057, 0.057, 0.057), 1.0),
    PublishedMass("chips can", "can", 0.205, (0.075, 0.075, 0.250), _ROUND),
    PublishedMass("coffee can", "can", 0.414, (0.102, 0.102, 0.139), _ROUND),
    PublishedMass("tomato soup can", "can", 0.349, (0.066, 0.066, 0.101), _ROUND),
    PublishedMass("tuna can", "can", 0.171, (0.085, 0.085, 0.033), _ROUND),
    PublishedMass("mini soccer ball", "ball", 0.123, (0.140, 0.140, 0.140), _BALL),
    PublishedMass("softball", "ball", 0.191, (0.096, 0.096, 0.096), _BALL),
    PublishedMass("baseball", "ball", 0.148, (0.075, 0.075, 0.075), _BALL),
    PublishedMass("tennis ball", "ball", 0.058, (0.0647, 0.0647, 0.0647), _BALL),
    PublishedMass("racquetball", "ball", 0.041, (0.0553, 0.0553, 0.0553), _BALL),
    PublishedMass("golf ball", "ball", 0.046, (0.0427, 0.0427, 0.0427), _BALL),
    PublishedMass("mustard bottle", "bottle", 0.603, (0.058, 0.095, 0.190), _BOTTLE),
    PublishedMass("bleach bottle", "bottle", 1.131, (0.065, 0.098, 0.250), _BOTTLE),
    PublishedMass("glass cleaner", "bottle", 1.022, (0.080, 0.105, 0.270), _BOTTLE),
    PublishedMass("mug", "mug", 0.118, (0.080, 0.080, 0.082), _ROUND),
    PublishedMass("bowl", "bowl", 0.147, (0.159, 0.159, 0.053), 0.75 * _ROUND),
    PublishedMass("plate", "plate", 0.279, (0.258, 0.258, 0.024), 0.7 * _ROUND),
    PublishedMass("fork", "tool", 0.034, (0.014, 0.020, 0.198), _HALF),
    PublishedMass("spoon", "tool", 0.030, (0.014, 0.020, 0.195), _HALF),
    PublishedMass("knife", "tool", 0.031, (0.014, 0.020, 0.215), _HALF),
    PublishedMass("scissors", "tool", 0.082, (0.014, 0.087, 0.200), _HALF),
    PublishedMass("spatula", "tool", 0.0515, (0.035, 0.083, 0.350), _HALF),
    PublishedMass("Phillips screwdriver", "tool", 0.097, (0.031, 0.031, 0.215), _HALF * _ROUND),
    PublishedMass("flat screwdriver", "tool", 0.0984, (0.031, 0.031, 0.215), _HALF * _ROUND),
    PublishedMass("wine glass", "object", 0.133, (0.089, 0.089, 0.137), 0.7 * _ROUND),
    PublishedMass("pitcher", "object", 0.178, (0.108, 0.108, 0.235), _ROUND),
    PublishedMass("sponge", "object", 0.0062, (0.072, 0.114, 0.014), 1.0),
)


def log_densities(class_name: str) -> list[float]:
    """Of the published objects of a class; of "object" those of all of them, as it may be anything."""
    return [p.log_density for p in PUBLISHED if class_name in ("object", p.class_name)]
