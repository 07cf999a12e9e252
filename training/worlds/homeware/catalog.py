"""The families of household things: what each is, how often it is drawn, and how it reflects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from training.worlds.families import DrawnObject
from training.worlds.homeware import packaging, tableware, tools


@dataclass(frozen=True)
class Family:
    """A family of household things.

    Attributes:
        draw: from a random generator to an object; weight: how often it is drawn, against the others.
        gloss: how much its surface mirrors, 0 (cardboard) to 1 (polished steel): where depth sensors fail.
        holds: it is hollow and something small may be put in.
        small: it fits into what holds.
    """

    draw: Callable[[np.random.Generator], DrawnObject]
    weight: float
    gloss: float = 0.15
    holds: bool = False
    small: bool = False


FAMILIES: dict[str, Family] = {
    "mug": Family(tableware.mug, 1.6, 0.3, holds=True),
    "cup": Family(tableware.cup, 1.3, 0.3, holds=True),
    "bowl": Family(tableware.bowl, 1.3, 0.35, holds=True),
    "plate": Family(tableware.plate, 1.1, 0.35, holds=True),
    "pan": Family(tableware.pan, 1.1, 0.5, holds=True),
    "pot": Family(tableware.pot, 0.6, 0.6),
    "spoon": Family(tableware.spoon, 0.8, 0.7, small=True),
    "knife": Family(tableware.knife, 0.6, 0.6, small=True),
    "fork": Family(tableware.fork, 0.6, 0.8, small=True),
    "teapot": Family(tableware.teapot, 0.5, 0.4),
    "vase": Family(tableware.vase, 0.8, 0.3),
    "tray": Family(tableware.tray, 1.0, 0.25, holds=True),
    "basket": Family(tableware.basket, 1.0, 0.1, holds=True),
    "board": Family(tableware.board, 0.5, 0.1),
    "carton": Family(packaging.carton, 2.6, 0.15, small=True),
    "cereal": Family(packaging.cereal, 1.2, 0.15),
    "parcel": Family(packaging.parcel, 0.7, 0.05),
    "book": Family(packaging.book, 1.1, 0.15),
    "milk": Family(packaging.milk, 0.9, 0.2),
    "bottle": Family(packaging.bottle, 2.2, 0.35),
    "can": Family(packaging.can, 1.8, 0.4, small=True),
    "jar": Family(packaging.jar, 1.2, 0.4, small=True),
    "tub": Family(packaging.tub, 0.9, 0.2),
    "tube": Family(packaging.tube, 0.7, 0.2, small=True),
    "pouch": Family(packaging.pouch, 0.9, 0.4),
    "spray": Family(packaging.spray, 0.8, 0.2),
    "eggs": Family(packaging.eggs, 0.5, 0.05),
    "fruit": Family(packaging.fruit, 1.0, 0.15, small=True),
    "banana": Family(packaging.banana, 0.5, 0.1, small=True),
    "hammer": Family(tools.hammer, 0.7, 0.4),
    "mallet": Family(tools.mallet, 0.6, 0.2),
    "screwdriver": Family(tools.screwdriver, 0.7, 0.3, small=True),
    "drill": Family(tools.drill, 0.8, 0.2),
    "whisk": Family(tools.whisk, 0.5, 0.6),
    "spatula": Family(tools.spatula, 0.6, 0.3, small=True),
    "brush": Family(tools.brush, 0.6, 0.1, small=True),
    "scissors": Family(tools.scissors, 0.7, 0.5, small=True),
    "pliers": Family(tools.pliers, 0.5, 0.4, small=True),
    "stapler": Family(tools.stapler, 0.5, 0.3),
    "tape": Family(tools.tape, 0.8, 0.2, small=True),
    "caddy": Family(tools.caddy, 0.6, 0.15),
    "flashlight": Family(tools.flashlight, 0.5, 0.4, small=True),
    "pen": Family(tools.pen, 0.5, 0.2, small=True),
    "remote": Family(tools.remote, 0.8, 0.3, small=True),
    "letters": Family(tools.letters, 0.7, 0.1, small=True),
    "candle": Family(tools.candle, 0.5, 0.2),
}
"""Name: family. Together with the primitives of ``training.worlds.families`` they are all that weights are made of."""


def choose(rng: np.random.Generator, names: list[str] | None = None) -> str:
    """A family's name by weight, of all or of some."""
    pool = names or list(FAMILIES)
    weights = np.array([FAMILIES[n].weight for n in pool])
    return pool[int(rng.choice(len(pool), p=weights / weights.sum()))]


def gloss(name: str) -> float:
    """Of a body of a scene by its name, which is its family's with a number behind; 0.1 for all else."""
    family = FAMILIES.get(name.rstrip("0123456789"))
    return family.gloss if family else 0.1
