"""The belief about a scene: samples of its graph, which objects move, and their bodies and states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from wm_core.convex_parts import ConvexPart
from wm_core.interventions import Hypothesis
from wm_core.rollout import STATE_SIZE
from wm_core.rotations import normalize_quaternion, quaternion_to_matrix
from wm_core.scene_graph import SceneGraph, Shape
from wm_dynamics.base import Array
from wm_dynamics.mujoco.bodies import BodyDef, GeomDef, body_from_spec, rest_state

CHI2_3_99 = 11.345
"""99 % quantile of the chi-square distribution with three degrees of freedom."""


def moving_objects(scene: SceneGraph) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which objects (N,) are believed to move, and which to turn.

    A velocity counts when it is outside the 99 % region of its covariance around zero; a velocity without
    covariance is known exactly and counts as it is. Static objects do neither.
    """

    def significant(velocities: Array, covariances: Array) -> NDArray[np.bool_]:
        result = np.zeros(len(scene), dtype=bool)
        for i, (v, covariance) in enumerate(zip(velocities, covariances, strict=True)):
            speed = float(np.linalg.norm(v))
            if scene.is_static[i] or speed == 0.0:
                continue
            if not np.isfinite(covariance).all() or np.trace(covariance) <= 0.0:
                result[i] = True
                continue
            regular = covariance + 1e-9 * np.eye(3)
            result[i] = float(v @ np.linalg.solve(regular, v)) > CHI2_3_99
        return result

    return (
        significant(scene.linear_velocities, scene.twist_covariances[:, :3, :3]),
        significant(scene.angular_velocities, scene.twist_covariances[:, 3:, 3:]),
    )


def sample_belief(scene: SceneGraph, samples: int, seed: int) -> tuple[SceneGraph, ...]:
    """Samples of the belief about a scene; the first is always the mean.

    Drawn: pose (from ``pose_covariances``); of objects that were seen to move, the velocity (from
    ``twist_covariances``), also where it is not certain that they do and the mean has them at rest
    (``moving_objects``); of objects that are believed to turn, the angular velocity; mass (log-normal), friction and
    restitution (normal, clipped to 0.02..2 and 0..0.95).
    Static objects keep their pose: what rests on them is known relative to them. Objects are drawn in the
    order of their ids, each from its own stream, so that one object's samples do not depend on which others
    are there.
    """
    result = [scene]
    _, turns = moving_objects(scene)
    moves = np.linalg.norm(scene.linear_velocities, axis=1) > 0.0
    for s in range(1, max(int(samples), 1)):
        positions, quaternions = scene.positions.copy(), scene.quaternions.copy()
        linear, angular = scene.linear_velocities.copy(), scene.angular_velocities.copy()
        log_mass, friction, restitution = (
            scene.log_mass.copy(),
            scene.friction.copy(),
            scene.restitution.copy(),
        )
        for i in range(len(scene)):
            rng = np.random.default_rng([int(seed), s, int(scene.ids[i])])
            unit = rng.standard_normal(15)
            log_mass[i] += scene.log_mass_std[i] * unit[12]
            friction[i] = np.clip(scene.friction[i] + scene.friction_std[i] * unit[13], 0.02, 2.0)
            restitution[i] = np.clip(scene.restitution[i] + scene.restitution_std[i] * unit[14], 0.0, 0.95)
            if scene.is_static[i]:
                continue
            pose = _square_root(scene.pose_covariances[i]) @ unit[:6]
            positions[i] += pose[:3]
            quaternions[i] = (Rotation.from_rotvec(pose[3:]) * Rotation.from_quat(quaternions[i])).as_quat()
            twist = _square_root(scene.twist_covariances[i]) @ unit[6:12]
            linear[i] += twist[:3] * moves[i]
            angular[i] += twist[3:] * turns[i]
        result.append(
            replace(
                scene,
                positions=positions,
                quaternions=quaternions,
                linear_velocities=linear,
                angular_velocities=angular,
                log_mass=log_mass,
                friction=friction,
                restitution=restitution,
            )
        )
    return tuple(result)


def _square_root(covariance: Array) -> Array:
    """L with L L^T = covariance, for symmetric positive semi-definite matrices; zero where it is not
    finite.
    """
    if not np.isfinite(covariance).all():
        return np.zeros_like(covariance)
    values, vectors = np.linalg.eigh(0.5 * (covariance + covariance.T))
    return vectors * np.sqrt(np.clip(values, 0.0, None))


def scene_states(scene: SceneGraph) -> Array:
    """(N, 13) states of the scene's objects as perceived."""
    return np.concatenate(
        [
            scene.positions,
            normalize_quaternion(scene.quaternions),
            scene.linear_velocities,
            scene.angular_velocities,
        ],
        axis=1,
    ).reshape(len(scene), STATE_SIZE)


def _solids(scene: SceneGraph, index: int) -> tuple[ConvexPart, ...]:
    """The parts of an object; of one without parts its shape."""
    if scene.parts[index]:
        return scene.parts[index]
    shape = Shape(int(scene.shapes[index]))
    extents = np.asarray(scene.extents[index], dtype=np.float64)
    hull = scene.hulls[index] if shape == Shape.CONVEX else np.zeros((0, 3))
    if shape == Shape.SPHERE:
        extents = np.full(3, extents.mean())
    return (ConvexPart(shape, extents, hull=np.asarray(hull, dtype=np.float64)),)


def scene_body(scene: SceneGraph, index: int) -> BodyDef:
    """The body of a scene object as perceived."""
    color = (*(float(c) for c in scene.colors[index]), 1.0)
    return BodyDef(
        tuple(GeomDef(p.shape, p.extents, p.position, p.quaternion, p.hull, color) for p in _solids(scene, index)),  # type: ignore[arg-type]
        mass=float(np.clip(np.exp(scene.log_mass[index]), 1e-6, 1e5)),
        friction=float(np.clip(scene.friction[index], 0.0, 10.0)),
        restitution=float(np.clip(scene.restitution[index], 0.0, 1.0)),
        is_static=bool(scene.is_static[index]),
        static_state=rest_state(scene.positions[index], scene.quaternions[index]),
    )


def hypothesis_bodies(scene: SceneGraph, hypothesis: Hypothesis, bodies: Sequence[BodyDef]) -> tuple[BodyDef, ...]:
    """The scene's bodies, then those that the hypothesis creates."""
    created = []
    for intervention in hypothesis.interventions:
        if intervention.creates_body:
            assert intervention.body is not None  # validated
            created.append(body_from_spec(intervention.body))
    return (*bodies, *created)


_SHARES = {Shape.SPHERE: np.pi / 6.0, Shape.CYLINDER: np.pi / 4.0, Shape.CAPSULE: np.pi / 4.0}
"""Volumes of shapes as shares of those of their bounds; a capsule counts as a cylinder, a hull as its bounds."""


def _moments(shape: Shape, extents: Array) -> Array:
    """(3,) principal moments per kilogram [m^2] of a shape of uniform density, about its own axes."""
    x, y, z = extents
    if shape == Shape.SPHERE:
        return np.full(3, 0.1 * x * x)
    if shape in (Shape.CYLINDER, Shape.CAPSULE):
        side = (3.0 * 0.25 * x * x + z * z) / 12.0
        return np.array([side, side, 0.125 * x * x])
    return np.array([y * y + z * z, x * x + z * z, x * x + y * y]) / 12.0


def inertia(body: BodyDef) -> Array:
    """(3,) moments [kg m^2] of a body of uniform density about axes through its center of mass, parallel to its own."""
    solid = [g for g in body.geoms if not g.visual_only]
    if len(solid) == 1:
        return body.mass * _moments(solid[0].shape, solid[0].extents)
    weights = np.array([_SHARES.get(g.shape, 1.0) * float(np.prod(g.extents)) for g in solid])
    weights *= body.mass / weights.sum()
    middles = np.array([g.position for g in solid])
    arms = middles - weights @ middles / body.mass
    result = np.zeros(3)
    for g, weight, arm in zip(solid, weights, arms, strict=True):
        turned = quaternion_to_matrix(g.quaternion) ** 2 @ _moments(g.shape, g.extents)
        result += weight * (turned + arm @ arm - arm**2)
    return result
