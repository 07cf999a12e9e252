"""Which containers are objects of their own in the scene graph."""

from __future__ import annotations

from collections.abc import Collection

from wm_perception.lifting.container_object import LEAST_FRAMES
from wm_perception.lifting.structure import Container, Structure

_AVERAGED = 8
"""Frames over which it is averaged whether a segmenter sees a container as one thing. Larger: later, fewer changes."""
_OWN = 0.3
"""Part of these frames up to which it may, for the container to be an object of its own. Larger: trays twice."""


class PublishedContainers:
    """Keeps which containers are in the scene graph: those that the segmenter does not see whole.

    Attributes:
        entered, left: ids of those that are new in it and gone from it since the frame before.
    """

    def __init__(self) -> None:
        self.entered: tuple[int, ...] = ()
        self.left: tuple[int, ...] = ()
        self._whole: dict[int, float] = {}
        self._published: set[int] = set()

    def update(self, structure: Structure, whole: Collection[int]) -> tuple[Container, ...]:
        """The containers to publish in this frame.

        Args:
            whole: indices in ``structure.containers`` of those that are one tracked instance of this frame.
        """
        shares = {}
        for index, container in enumerate(structure.containers):
            before = self._whole.get(container.id, float(index in whole))
            shares[container.id] = before + (float(index in whole) - before) / _AVERAGED
        self._whole = shares
        # In the graph it stays until it is seen whole mostly.
        now = {
            c.id
            for c in structure.containers
            if c.frames >= LEAST_FRAMES and shares[c.id] <= (1.0 - _OWN if c.id in self._published else _OWN)
        }
        self.entered = tuple(sorted(now - self._published))
        self.left = tuple(sorted(self._published - now))
        self._published = now
        return tuple(c for c in structure.containers if c.id in now)
