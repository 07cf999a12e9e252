"""What objects weigh, by class, and how well the prior of perception knows it: `python -m training.worlds.masses`.

The first table is where the constants of wm_perception/shapes/mass_prior.py come from: the logarithm of mass over the
volume of the outline, and over that of the parts, of objects of the training worlds and of published ones. The second
table is the error of the prior on worlds that were not used for it, divided by the spread that it states: at true
shapes, and with `--perceived` of objects as the perception pipeline finds them in rendered images.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from training.worlds.appearance import open_simulator, random_noise
from training.worlds.published_masses import log_densities
from training.worlds.splits import SPLITS, Split
from training.worlds.worlds import random_scene
from wm_core.convex_parts import ConvexPart
from wm_core.part_solids import solid_of
from wm_core.scene_graph import Shape
from wm_perception.evaluation import match
from wm_perception.pipeline import PerceptionPipeline
from wm_perception.shapes.mass_prior import UNKNOWN, log_mass_prior, outline_volume
from wm_perception.types import Array, Frame, PerceptionConfig

_PERCEIVED_FROM = 1000
"""First seed of the worlds that are rendered: others than those of the table."""
_FRAMES, _FRAME_S = 9, 1.0 / 15.0
"""Images of a world, and the time between them [s]: before its first object is set in motion."""
LEAST_PUBLISHED = 3
"""Published objects of a class from which they count: the spread of fewer says nothing."""


@dataclass(frozen=True)
class Weighed:
    """One drawn object: its class, its shape as in ``SceneGraph``, and its mass [kg]."""

    class_name: str
    shape: Shape
    extents: Array
    hull: Array
    parts: tuple[ConvexPart, ...]
    mass: float

    def log_density(self, over_parts: bool) -> float:
        """Logarithm of mass over the volume of the outline or of the parts [kg/m^3]."""
        volume = outline_volume(self.shape, self.extents, self.hull, self.parts)
        if over_parts and self.parts:
            volume = solid_of(self.parts).volume
        return float(np.log(self.mass / volume))


def drawn(split: Split, worlds: int) -> Iterator[Weighed]:
    """The movable objects of the first worlds of a split."""
    for seed in range(worlds):
        scene = random_scene(seed, split)
        for k, body in enumerate(scene.bodies):
            if not body.is_static and k not in scene.pushers:
                yield Weighed(
                    scene.class_names[k], scene.shapes[k], scene.extents[k], scene.hulls[k], scene.parts[k], body.mass
                )


def weighed(worlds: int) -> list[Weighed]:
    """The objects that the constants are made from, of so many worlds of each split.

    Those of no class are drawn in ``assemblies`` only, those of the classes of household things in ``homeware`` only.
    """
    objects = list(drawn("train", worlds))
    known = {o.class_name for o in objects}
    objects += [o for o in drawn("assemblies", worlds) if o.class_name == UNKNOWN]
    return objects + [o for o in drawn("homeware", worlds) if o.class_name not in {*known, UNKNOWN}]


def mixed(first: Sequence[float], second: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation of the even mixture of two samples; of the first alone where the second is short."""
    groups = [np.asarray(first)] + ([np.asarray(second)] if len(second) >= LEAST_PUBLISHED else [])
    mean = float(np.mean([g.mean() for g in groups]))
    return mean, float(np.sqrt(np.mean([g.var() + (g.mean() - mean) ** 2 for g in groups])))


def density_table(objects: Sequence[Weighed]) -> dict[str, tuple[int, Array, Array, tuple[float, float]]]:
    """By class: how many, their log densities over the outline and over the parts, and the mixture over the outline."""
    table = {}
    for name in sorted({o.class_name for o in objects}):
        own = [o for o in objects if o.class_name == name]
        outline = np.array([o.log_density(over_parts=False) for o in own])
        parts = np.array([o.log_density(over_parts=True) for o in own])
        table[name] = len(own), outline, parts, mixed(outline.tolist(), log_densities(name))
    return table


def normalized_errors(objects: Sequence[Weighed], with_class: bool, with_parts: bool) -> tuple[Array, Array]:
    """Errors (N,) of the log mass, and the same over the stated spread, at exact sizes.

    Args:
        with_class: the true class is known; else no class. with_parts: the parts are known; else the outline alone.
    """
    errors, spreads = [], []
    for o in objects:
        name = o.class_name if with_class else UNKNOWN
        mean, std = log_mass_prior({name: 1.0}, o.shape, o.extents, o.hull, o.parts if with_parts else (), 0.0)
        errors.append(mean - np.log(o.mass))
        spreads.append(std)
    return np.array(errors), np.array(errors) / np.array(spreads)


def perceived_errors(split: Split, worlds: int) -> Array:
    """Of N objects that perception finds in worlds at rest, before any contact.

    Returns:
        (N, 3): error of the log mass, the stated spread, error of the logarithm of the outline's volume.
    """
    rows = []
    for seed in range(_PERCEIVED_FROM, _PERCEIVED_FROM + worlds):
        scene = random_scene(seed, split)
        pipeline = PerceptionPipeline(PerceptionConfig(reasoner="geometric"))
        with open_simulator(scene, seed, noise=random_noise(seed, split)) as simulator:
            for _ in range(_FRAMES):
                image = simulator.render()
                found = pipeline.process(
                    Frame(simulator.stamp_ns, image.rgb, image.depth, simulator.camera, image.world_T_camera)
                ).scene
                simulator.advance_to(simulator.time_s + _FRAME_S)
            true = simulator.ground_truth()
        pushers = {scene.ids[k] for k in scene.pushers}
        for p, t, _ in match(found, true):
            if int(true.ids[t]) in pushers:
                continue
            volumes = [
                outline_volume(int(g.shapes[k]), g.extents[k], g.hulls[k], g.parts[k])
                for g, k in ((found, p), (true, t))
            ]
            rows.append([found.log_mass[p] - true.log_mass[t], found.log_mass_std[p], np.log(volumes[0] / volumes[1])])
    return np.array(rows).reshape(-1, 3)


def _calibration(errors: Array, normalized: Array) -> str:
    size = np.abs(normalized)
    return (
        f"n {len(errors):5d}  bias {errors.mean():5.2f}  RMS {np.sqrt((errors**2).mean()):.2f}  normalized "
        f"{np.sqrt((normalized**2).mean()):.2f}  {(size < 1).mean():.0%} {(size < 2).mean():.0%}"
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=120, help="of each split (default: %(default)s)")
    parser.add_argument(
        "--check", nargs="*", default=["seeds", "families"], choices=SPLITS, help="default: %(default)s"
    )
    parser.add_argument("--perceived", type=int, default=0, help="worlds that are rendered (default: %(default)s)")
    arguments = parser.parse_args()
    objects = weighed(arguments.worlds)
    print(
        f"log density [kg/m^3]: mean and standard deviation; {arguments.worlds} worlds each of train, assemblies and, "
        "of the classes that these have not, homeware"
    )
    print(f"{'class':10s} {'drawn':>6s} {'outline':>12s} {'parts':>12s} {'published':>16s} {'mixture':>12s}")
    table = density_table(objects)
    for name, (count, outline, parts, (mean, std)) in table.items():
        known = np.array(log_densities(name))
        said = f"{known.mean():6.2f} {known.std():5.2f} ({len(known)})" if len(known) else "-"
        print(
            f"{name:10s} {count:6d} {outline.mean():6.2f} {outline.std():5.2f} {parts.mean():6.2f} {parts.std():5.2f} "
            f"{said:>16s} {mean:6.2f} {std:5.2f}"
        )
    # What is published of objects of no class is over their outline: the parts of drawn ones fill a share of it.
    _, outline, parts, (mean, std) = table[UNKNOWN]
    spread = np.sqrt(std**2 + parts.var() - outline.var())
    print(f"{'parts':10s} of no class: {mean + parts.mean() - outline.mean():.2f} {spread:.2f}")
    print("\nerror of the log mass; the same over the stated spread: RMS, share within 1 and within 2")
    for split in arguments.check:
        unseen = list(drawn(cast(Split, split), arguments.worlds))
        for with_class in (True, False):
            for with_parts in (True, False):
                errors, normalized = normalized_errors(unseen, with_class, with_parts)
                knowing = f"{'class' if with_class else 'no class':9s} {'parts' if with_parts else 'outline':8s}"
                print(f"{split:10s} {knowing} {_calibration(errors, normalized)}")
        if arguments.perceived:
            found = perceived_errors(cast(Split, split), arguments.perceived)
            volumes = found[:, 2]
            print(f"{split:10s} {'as perceived':18s} {_calibration(found[:, 0], found[:, 0] / found[:, 1])}")
            print(
                f"{split:10s} perceived over true volume, logarithm: median {np.median(volumes):.2f}, half within "
                f"{np.median(np.abs(volumes)):.2f}, standard deviation {volumes.std():.2f}"
            )


if __name__ == "__main__":
    main()
