"""Worlds of household things by seed: what is there, where it stands, what moves, and the camera."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from training.worlds import families
from training.worlds.families import DrawnObject
from training.worlds.homeware.catalog import FAMILIES, choose
from training.worlds.homeware.piles import Item, laid_out, settled
from training.worlds.homeware.settings import Setting, random_setting
from training.worlds.motions import DURATION_S, movers, sweeping_pusher
from training.worlds.splits import generator
from training.worlds.textures import random_texture
from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import BodyDef, body_points, rest_state
from wm_sim.objects import centered
from wm_sim.scene_model import Randomize, SceneModel, TableModel
from wm_sim.scenes import TABLE_ID, BuiltScene

Array = NDArray[np.float64]

_DENSITY_KG_M3 = (150.0, 1500.0)
"""Of materials: from foam and card to glass and ceramics; what is hollow has little of it (``DrawnObject.fill``)."""
_PRIMITIVES = 0.12
"""Part of the things that are primitives of the split ``train``, so that these stay known among the others."""
_MOST = 14
"""Things of a world at most. More are more hidden, and slower to simulate."""


def _drawn(rng: np.random.Generator, names: list[str] | None = None) -> tuple[str, DrawnObject]:
    """A thing and its family's name."""
    if names is None and rng.uniform() < _PRIMITIVES:
        return families.draw(families.TRAINING, rng)
    name = choose(rng, names)
    return name, FAMILIES[name].draw(rng)


def _turn(drawn: DrawnObject, heap: float, rng: np.random.Generator) -> Rotation:
    """How a thing is held before it falls: upright, on its side, or in a heap anyhow."""
    if heap > 0.5 and rng.uniform() < 0.5:
        return Rotation.random(random_state=np.random.RandomState(int(rng.integers(2**31))))
    if not drawn.stands or (drawn.lies and rng.uniform() < 0.25):
        return Rotation.from_euler("y", 90.0, degrees=True)
    if rng.uniform() < 0.04:
        return Rotation.from_euler("x", 180.0, degrees=True)
    return Rotation.identity()


def _choice(setting: Setting, rng: np.random.Generator) -> tuple[list[tuple[str, DrawnObject, int]], float]:
    """What is to be there, each with the index of what it is put into (-1: nothing), and how much of a heap it is."""
    heap = float(rng.choice([0.0, rng.uniform(0.2, 0.6), 1.0], p=[0.4, 0.3, 0.3]))
    if setting.kind == "bin":
        heap = float(rng.choice([0.4, 1.0]))
    elif setting.kind == "shelf":
        heap = float(rng.choice([0.0, 0.3]))
    count = int(rng.integers(2, 13)) if heap < 1.0 and setting.kind != "shelf" else int(rng.integers(4, _MOST + 1))
    chosen: list[tuple[str, DrawnObject, int]] = []
    kind = choose(rng) if rng.uniform() < 0.12 else None
    while len(chosen) < count:
        # Several of one kind, as in a cupboard, or a mixture.
        name, drawn = _drawn(rng, [kind] if kind and rng.uniform() < 0.7 else None)
        chosen.append((name, drawn, -1))
        if name in FAMILIES and FAMILIES[name].holds and rng.uniform() < 0.4:
            base = len(chosen) - 1
            small = [n for n in FAMILIES if FAMILIES[n].small]
            for _ in range(int(rng.integers(1, 4 if name in ("tray", "basket", "bowl", "pan") else 2))):
                inner, content = _drawn(rng, small)
                chosen.append((inner, content, base))
    return chosen[:_MOST], heap


def _body(drawn: DrawnObject, rng: np.random.Generator) -> tuple[BodyDef, Array]:
    """A thing as a body about the center of its bounds, and its full extents (3,) [m]."""
    parts, full = centered(list(drawn.parts))
    density = float(np.exp(rng.uniform(*np.log(_DENSITY_KG_M3))))
    mass = max(density * drawn.fill * float(np.prod(full)), 0.005)
    return BodyDef(parts, mass, float(rng.uniform(0.25, 0.9)), float(rng.uniform(0.0, 0.3))), full


def homeware_scene(seed: int) -> BuiltScene:
    """The world of a seed of the split ``homeware``: up to 14 things that rest, up to three of them set in motion."""
    rng = generator("homeware", seed, 0)
    setting = random_setting(rng)
    chosen, heap = _choice(setting, rng)
    made = [_body(drawn, rng) for _, drawn, _ in chosen]
    items: list[Item] = []
    for (_, drawn, into), (body, _) in zip(chosen, made, strict=True):
        upright = into < 0 and any(i == len(items) for _, _, i in chosen)
        turn = Rotation.identity() if upright else _turn(drawn, heap, rng)
        if into >= 0 and chosen[into][0] in ("mug", "cup"):
            # On end, as a spoon is put into a mug.
            turn = Rotation.from_euler("y", float(rng.choice([-1.0, 1.0])) * rng.uniform(70.0, 85.0), degrees=True)
        items.append(Item(body, turn, into))
    states, index = laid_out(items, setting, heap, rng)
    states, keep = settled([made[k][0] for k in index], states, setting)
    rows = [k for k, good in zip(index, keep, strict=True) if good]
    states = states[keep]

    names, classes = ["table"], ["support"]
    bodies, extents, shapes = [setting.support], [setting.size], [Shape.BOX]
    corner = 0.5 * setting.size * [[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]]
    hulls, rolls = [corner], [0.0]
    for k in rows:
        name, drawn, _ = chosen[k]
        body, full = made[k]
        at = len(bodies)
        geoms = tuple(replace(g, material="" if g.mesh else _material(g.color, g.hidden, at)) for g in body.geoms)
        names.append(f"{name}{at}")
        classes.append(drawn.class_name)
        bodies.append(replace(body, geoms=geoms))
        extents.append(full)
        shapes.append(drawn.shape)
        hulls.append(body_points(body) if drawn.shape == Shape.CONVEX else np.zeros((0, 3)))
        rolls.append(0.5 * float(full[0]) if drawn.rolls else 0.0)
    everything = np.concatenate([setting.support.static_state[None], states])
    schedule = movers(everything, np.array(extents), bodies, rolls, rng)
    pushers: tuple[int, ...] = ()
    if setting.kind in ("table", "floor") and rng.uniform() < 0.12 and len(bodies) > 1:
        body, path = sweeping_pusher(everything, setting.top, rng)
        pushers = (len(bodies),)
        schedule.append((len(bodies), path))
        names.append("pusher")
        classes.append("object")
        bodies.append(body)
        everything = np.concatenate([everything, rest_state(path.path_positions[0], path.path_quaternions[0])[None]])
        extents.append(body.geoms[0].extents)
        shapes.append(Shape.BOX)
        hulls.append(np.zeros((0, 3)))
    model = SceneModel.model_construct(
        name=f"homeware-{seed}",
        description=f"household world {seed}: {setting.kind}",
        duration=DURATION_S,
        table=TableModel.model_construct(size=setting.size.tolist(), height=setting.top, look="wood"),
        walls=True,
        camera=setting.camera,
        randomize=Randomize(),
        objects=[],
        actions=[],
        pushers=[],
    )
    return BuiltScene(
        model=model,
        names=tuple(names),
        class_names=tuple(classes),
        bodies=tuple(bodies),
        states=everything,
        schedule=tuple(sorted(schedule, key=lambda item: item[1].time_offset)),
        pushers=pushers,
        table_top_z=setting.top,
        extents=np.array(extents),
        shapes=tuple(shapes),
        hulls=tuple(hulls),
        colors=np.array([_color(body, seed) for body in bodies]),
        ids=tuple(range(TABLE_ID, TABLE_ID + len(bodies))),
    )


def _material(color: tuple[float, float, float, float], hidden: bool, index: int) -> str:
    """Of a primitive: a texture of its own, but for parts that have a color of their own."""
    return f"material{index}" if color == families.WHITE and not hidden else ""


def _color(body: BodyDef, seed: int) -> Array:
    """Mean color (3,) 0..1 of a body."""
    for geom in body.geoms:
        if geom.mesh is not None:
            return np.asarray(geom.mesh.texture.reshape(-1, 3).mean(axis=0) / 255.0)
    texture = random_texture("homeware", generator("homeware", seed, 1), False)
    return np.asarray(texture.reshape(-1, 3).mean(axis=0) / 255.0)
