"""Writes a scene as a Gazebo world (SDF 1.9, Gazebo Harmonic and Ionic), with an RGB-D camera at the scene's camera.

    python -m wm_sim.gazebo demo worlds/tabletop.sdf config/gz_static_tf.yaml

This command has made ``worlds/tabletop.sdf``, the demonstration scene. The Gazebo world differs from the scene: the
conical shoulder of a bottle becomes a cylinder of its mean radius, restitution is left to the physics engine (DART
ignores it), and patterns become plain colors. The scheduled actions of a scene do not happen. Instead the world loads
ApplyLinkWrench, with which one pushes an object:

    gz topic -t /world/tabletop/wrench -m gz.msgs.EntityWrench -p \\
        'entity: {name: "ball", type: MODEL}, wrench: {force: {y: -300.0}}'

The force acts for one step of 2 ms. The camera does not move.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

import numpy as np
import yaml
from numpy.typing import ArrayLike, NDArray
from scipy.spatial.transform import Rotation

from wm_core.constants import GRAVITY_M_S2
from wm_core.geometry import invert_transform, pose_matrix
from wm_core.rotations import matrix_to_quaternion, roll_pitch_yaw
from wm_core.scene_graph import Shape
from wm_dynamics.mujoco.bodies import BodyDef, GeomDef
from wm_dynamics.mujoco.world import World
from wm_sim.cameras import look_at
from wm_sim.scene_model import load_scene
from wm_sim.scenes import BuiltScene, build_scene

FLOOR_THICKNESS_M = 1.0
"""Of the floor's box: what falls from a table moves 8 mm in a step, and must not be below its middle before it is
pushed out upwards. Any larger value does as well."""
CAMERA_TOPIC = "camera"
"""Prefix of the camera's Gazebo topics; config/gz_bridge.yaml has the same."""
STEP_S = 0.002
"""Physics step [s]. A larger step saves time and makes contacts less exact."""

LINK_T_OPTICAL = pose_matrix([0.0, 0.0, 0.0], [-0.5, 0.5, -0.5, 0.5])
"""(4, 4) pose of the optical frame (z forward, x right, y down) in camera_link (x forward, y left, z up), REP-103."""


def camera_link_pose(scene: BuiltScene) -> NDArray[np.float64]:
    """(4, 4) pose [m] of camera_link (x forward, z up) in the map frame at the start of the scene."""
    spec, up = scene.model.camera, np.array([0.0, 0.0, scene.table_top_z])
    return look_at(np.array(spec.position) + up, np.array(spec.target) + up) @ invert_transform(LINK_T_OPTICAL)


def _numbers(values: ArrayLike) -> str:
    """The numbers as an SDF text of six digits each; adding 0 turns -0 into 0."""
    return " ".join(f"{v:.6g}" for v in np.asarray(values, dtype=np.float64).ravel() + 0.0)


def _pose(position: ArrayLike, quaternion: ArrayLike) -> str:
    """An SDF pose (x, y, z [m], roll, pitch, yaw [rad]) of a position (3,) and a quaternion (4,) x, y, z, w."""
    angles = roll_pitch_yaw(quaternion)
    return _numbers([*np.asarray(position), *np.where(np.abs(angles) < 1e-9, 0.0, angles)])


def _text(parent: Element, path: str, text: str) -> Element:
    """The element at a path below ``parent``, with this text; elements that do not exist are added."""
    element = parent
    for name in path.split("/"):
        found = element.find(name)
        element = found if found is not None else SubElement(element, name)
    element.text = text
    return element


def _geometry(parent: Element, part: GeomDef) -> None:
    """Add the geometry of a part; a convex hull becomes a cylinder of the mean distance of its points from the axis."""
    geometry = SubElement(parent, "geometry")
    x, y, z = part.extents
    if part.shape == Shape.BOX:
        _text(geometry, "box/size", _numbers(part.extents))
    elif part.shape == Shape.SPHERE:
        _text(geometry, "sphere/radius", _numbers(0.5 * x))
    elif part.shape == Shape.CAPSULE:
        _text(geometry, "capsule/radius", _numbers(0.25 * (x + y)))
        _text(geometry, "capsule/length", _numbers(z - 0.5 * (x + y)))
    else:
        mean = 0.25 * (x + y)
        if part.shape == Shape.CONVEX:
            mean = float(np.linalg.norm(part.hull[:, :2], axis=1).mean())
        _text(geometry, "cylinder/radius", _numbers(mean))
        _text(geometry, "cylinder/length", _numbers(z))


def _model(world: Element, name: str, scene: BuiltScene, index: int, compiled: World) -> None:
    """Add the body of an index with its start pose, MuJoCo's mass and inertia, and its collisions and visuals."""
    body = scene.bodies[index]
    state = body.static_state if body.is_static else scene.states[index]
    model = SubElement(world, "model", name=name)
    if body.is_static:
        _text(model, "static", "true")
    _text(model, "pose", _pose(state[:3], state[3:7]))
    link = SubElement(model, "link", name="link")
    if not body.is_static:
        inner, number = compiled.model, compiled.body_ids[index]
        inertial = SubElement(link, "inertial")
        quaternion = np.roll(inner.body_iquat[number], -1)
        _text(inertial, "pose", _pose(inner.body_ipos[number], quaternion))
        _text(inertial, "mass", _numbers(inner.body_mass[number]))
        for axis, value in zip(("ixx", "iyy", "izz"), inner.body_inertia[number], strict=True):
            _text(inertial, f"inertia/{axis}", _numbers(value))
        for axis in ("ixy", "ixz", "iyz"):
            _text(inertial, f"inertia/{axis}", "0")
    for k, part in enumerate(body.geoms):
        position = part.position
        if part.shape == Shape.CONVEX:
            position = position + 0.5 * (part.hull.min(axis=0) + part.hull.max(axis=0))
        pose = _pose(position, part.quaternion)
        if not part.visual_only:
            collision = SubElement(link, "collision", name=f"collision_{k}")
            _text(collision, "pose", pose)
            _geometry(collision, part)
            _text(collision, "surface/friction/ode/mu", _numbers(body.friction))
            _text(collision, "surface/friction/ode/mu2", _numbers(body.friction))
        visual = SubElement(link, "visual", name=f"visual_{k}")
        _text(visual, "pose", pose)
        _geometry(visual, part)
        color = scene.colors[index] if body.is_static and k == 0 else part.color[:3]
        for kind in ("ambient", "diffuse"):
            _text(visual, f"material/{kind}", _numbers([*color, 1.0]))
        _text(visual, "material/specular", "0.1 0.1 0.1 1")


def to_sdf(scene: BuiltScene, width: int = 640, height: int = 480, rate_hz: float = 30.0) -> str:
    """The scene as an SDF document. Pushers are left out: Gazebo moves nothing by a path without a plugin."""
    root = Element("sdf", version="1.9")
    world = SubElement(root, "world", name="tabletop")
    physics = SubElement(world, "physics", name="steps", type="ignored")
    _text(physics, "max_step_size", _numbers(STEP_S))
    _text(physics, "real_time_factor", "1.0")
    for filename, name in (
        ("gz-sim-physics-system", "gz::sim::systems::Physics"),
        ("gz-sim-user-commands-system", "gz::sim::systems::UserCommands"),
        ("gz-sim-scene-broadcaster-system", "gz::sim::systems::SceneBroadcaster"),
        ("gz-sim-apply-link-wrench-system", "gz::sim::systems::ApplyLinkWrench"),
    ):
        SubElement(world, "plugin", filename=filename, name=name)
    sensors = SubElement(world, "plugin", filename="gz-sim-sensors-system", name="gz::sim::systems::Sensors")
    _text(sensors, "render_engine", "ogre2")
    _text(world, "gravity", f"0 0 {-GRAVITY_M_S2}")
    _text(world, "scene/ambient", "0.5 0.5 0.5 1")
    _text(world, "scene/background", "0.78 0.77 0.74 1")
    sun = SubElement(world, "light", type="directional", name="sun")
    _text(sun, "cast_shadows", "true")
    _text(sun, "pose", "0 0 4 0 0 0")
    _text(sun, "diffuse", "0.7 0.7 0.68 1")
    _text(sun, "specular", "0.2 0.2 0.2 1")
    _text(sun, "direction", "0.3 -0.42 -0.86")
    floor = SubElement(world, "model", name="floor")
    _text(floor, "static", "true")
    link = SubElement(floor, "link", name="link")
    # Balls, cylinders and capsules sink through a plane in Gazebo's DART (gz-sim issue 1306), not through a thick box.
    collision = SubElement(link, "collision", name="collision")
    _text(collision, "pose", f"0 0 {-0.5 * FLOOR_THICKNESS_M} 0 0 0")
    _text(collision, "geometry/box/size", f"8 8 {FLOOR_THICKNESS_M}")
    visual = SubElement(link, "visual", name="visual")
    _text(visual, "geometry/plane/normal", "0 0 1")
    _text(visual, "geometry/plane/size", "8 8")
    _text(visual, "material/ambient", "0.45 0.44 0.42 1")
    _text(visual, "material/diffuse", "0.45 0.44 0.42 1")
    compiled = World([_bare(b) for b in scene.bodies], 0.0, STEP_S, touch_sensors=False)
    for index, name in enumerate(scene.names):
        if index not in scene.pushers:
            _model(world, name, scene, index, compiled)
    _camera(world, scene, width, height, rate_hz)
    ElementTree.indent(root)
    head = f"<!-- The scene {scene.model.name!r}, written by wm_sim.gazebo. -->"
    return f'<?xml version="1.0"?>\n{head}\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _bare(body: BodyDef) -> BodyDef:
    """The body without materials, which only a decorated world defines."""
    return replace(body, geoms=tuple(replace(g, material="") for g in body.geoms))


def _camera(world: Element, scene: BuiltScene, width: int, height: int, rate_hz: float) -> None:
    """Add a static RGB-D camera with the scene's field of view, of this image size [pixels] and rate [Hz]."""
    pose = camera_link_pose(scene)
    model = SubElement(world, "model", name="camera")
    _text(model, "static", "true")
    _text(model, "pose", _pose(pose[:3, 3], matrix_to_quaternion(pose[:3, :3])))
    link = SubElement(model, "link", name="camera_link")
    sensor = SubElement(link, "sensor", name="rgbd", type="rgbd_camera")
    _text(sensor, "topic", CAMERA_TOPIC)
    _text(sensor, "update_rate", _numbers(rate_hz))
    _text(sensor, "always_on", "true")
    camera = SubElement(sensor, "camera")
    vertical = np.radians(scene.model.camera.vertical_fov)
    _text(camera, "horizontal_fov", _numbers(2.0 * np.arctan(np.tan(0.5 * vertical) * width / height)))
    _text(camera, "image/width", str(width))
    _text(camera, "image/height", str(height))
    _text(camera, "image/format", "R8G8B8")
    _text(camera, "clip/near", "0.05")
    _text(camera, "clip/far", "12")
    # Gazebo's camera frame has x forward; images and camera info need the optical frame, with z forward.
    _text(camera, "optical_frame_id", "camera_color_optical_frame")


def static_transforms(scene: BuiltScene) -> list[dict[str, object]]:
    """The transforms from map to the optical frame, which Gazebo does not publish.

    Each is an argument list of tf2_ros/static_transform_publisher: parent, child, translation x, y, z [m] and rotation
    x, y, z, w.
    """
    pose = camera_link_pose(scene)
    base = np.eye(4)
    yaw = float(np.arctan2(pose[1, 0], pose[0, 0]))
    base[:3, :3] = Rotation.from_euler("z", yaw).as_matrix()
    base[:2, 3] = pose[:2, 3]
    chain = [
        ("map", "odom", np.eye(4)),
        ("odom", "base_link", base),
        ("base_link", "camera_link", invert_transform(base) @ pose),
        ("camera_link", "camera_color_optical_frame", LINK_T_OPTICAL),
    ]
    return [
        {
            "parent": parent,
            "child": child,
            "translation": [round(float(v), 6) + 0.0 for v in matrix[:3, 3]],
            "rotation": [round(float(v), 9) + 0.0 for v in matrix_to_quaternion(matrix[:3, :3])],
        }
        for parent, child, matrix in chain
    ]


def main() -> None:
    """Write the SDF world and the static transforms of a scene."""
    parser = argparse.ArgumentParser(description=to_sdf.__doc__)
    parser.add_argument("scene", help="name or file of a scene")
    parser.add_argument("world", type=Path, help="the SDF file to write")
    parser.add_argument("transforms", type=Path, help="the YAML file of static transforms to write")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    scene = build_scene(load_scene(arguments.scene), arguments.seed)
    arguments.world.write_text(to_sdf(scene), encoding="utf-8")
    text = "# Written by wm_sim.gazebo: rows for tf2_ros static_transform_publisher (m; quaternion x, y, z, w).\n"
    arguments.transforms.write_text(text + yaml.safe_dump(static_transforms(scene), sort_keys=False), encoding="utf-8")


if __name__ == "__main__":
    main()
