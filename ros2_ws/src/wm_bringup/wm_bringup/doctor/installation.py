"""What is installed: Python and its packages, ROS and its middleware, graphics."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from wm_bringup.doctor.findings import ERROR, NOTE, OK, WARNING, Finding
from wm_bringup.environment import prefixes, share_folder
from wm_bringup.packages import PACKAGES

SETUP = "run: make setup, then use .venv/bin/wm (or: source tools/env.sh)"
_IMAGE_BYTES = 640 * 480 * 3
PYTHON_PACKAGES = {
    # import name: (distribution, needed, what for)
    "numpy": ("numpy", True, "everything"),
    "scipy": ("scipy", True, "geometry, tracking"),
    "cv2": ("opencv-python-headless", True, "images"),
    "mujoco": ("mujoco", True, "physics, simulator"),
    "onnxruntime": ("onnxruntime", True, "models"),
    "mcap": ("mcap", True, "recording"),
    "rosbags": ("rosbags", True, "reading bags"),
    "av": ("av", True, "video of the demo"),
    "rerun": ("rerun-sdk", False, "Rerun recording of the demo"),
    "tf2_ros": ("tf2_ros", False, "transforms; without it wm's own buffer is used"),
    "torch": ("torch", False, "training and export only"),
    "tensorrt": ("tensorrt", False, "fast inference on NVIDIA GPUs"),
    "tensorrt_rtx_bindings": ("tensorrt-rtx-cu13-bindings", False, "fast inference on RTX GPUs, engines without a GPU"),
}
ROS_PACKAGES = ("wm_msgs", *PACKAGES)
_GL_PROBE = """
import mujoco, numpy
model = mujoco.MjModel.from_xml_string(
    "<mujoco><worldbody><light pos='0 0 3'/><geom type='sphere' size='.3' rgba='1 0 0 1'/></worldbody></mujoco>")
data = mujoco.MjData(model)
mujoco.mj_forward(model, data)
renderer = mujoco.Renderer(model, 32, 32)
renderer.update_scene(data)
image = renderer.render()
renderer.close()
assert image[..., 0].max() > 60 and numpy.ptp(image[..., 0]) > 30, "the picture is empty"
print("rendered")
"""
# Installation


def check_python() -> list[Finding]:
    """The interpreter and the packages that wm uses."""
    current = sys.version_info[:2]
    text = f"{platform.python_implementation()} {platform.python_version()} ({sys.executable})"
    supported = (3, 10) <= current <= (3, 13)
    findings = [
        Finding(
            "python",
            "interpreter",
            OK if supported else ERROR,
            text,
            "" if supported else "expected CPython 3.10 to 3.13; run: make setup PYTHON=/path/to/python3.12",
        )
    ]
    for module, (distribution, needed, purpose) in PYTHON_PACKAGES.items():
        if importlib.util.find_spec(module) is None:
            level = ERROR if needed else NOTE
            findings.append(
                Finding("python", distribution, level, f"not installed ({purpose})", SETUP if needed else "")
            )
            continue
        try:
            number = version(distribution)
        except PackageNotFoundError:
            number = "version unknown"
        findings.append(Finding("python", distribution, OK, number))
    return findings


def check_ros() -> list[Finding]:
    """rclpy, the middleware and its settings, this workspace's packages."""
    findings = []
    spec = importlib.util.find_spec("rclpy")
    if spec is None or spec.origin is None:
        return [Finding("ros", "rclpy", ERROR, "not importable", SETUP)]
    from_pip = "site-packages" in spec.origin and Path(spec.origin).is_relative_to(sys.prefix)
    distro = os.environ.get("ROS_DISTRO") or ("kilted" if from_pip else "unknown")
    findings.append(
        Finding(
            "ros",
            "distribution",
            OK if distro in ("jazzy", "kilted") else WARNING,
            f"{distro}, {'from pip' if from_pip else 'sourced'} ({spec.origin})",
            "" if distro in ("jazzy", "kilted") else "wm is tried with Jazzy and Kilted",
        )
    )
    findings.append(_check_middleware())
    # Fast DDS 3, from Kilted on, reads another variable than Fast DDS 2.
    variable = "FASTRTPS_DEFAULT_PROFILES_FILE" if distro == "jazzy" else "FASTDDS_DEFAULT_PROFILES_FILE"
    findings += check_fastdds_profile(os.environ.get(variable, ""), variable)
    discovery = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    domain = os.environ.get("ROS_DOMAIN_ID", "0") or "0"
    findings.append(Finding("ros", "domain", OK, f"ROS_DOMAIN_ID {domain}, discovery range {discovery}"))
    for package in ROS_PACKAGES:
        folder = share_folder(package)
        if folder is None:
            places = len(prefixes())
            findings.append(Finding("ros", package, ERROR, f"in none of {places} folders of AMENT_PREFIX_PATH", SETUP))
        elif importlib.util.find_spec(package) is None:
            findings.append(Finding("ros", package, ERROR, f"in {folder}, but Python does not find it", SETUP))
        elif package != "wm_msgs":
            findings.append(Finding("ros", package, OK, str(folder)))
        else:
            findings.append(_check_messages(folder))
    return findings


def _check_middleware() -> Finding:
    try:
        import rclpy

        name = rclpy.get_rmw_implementation_identifier()
    except Exception as error:
        return Finding("ros", "rclpy", ERROR, f"does not import: {first_line(error)}", SETUP)
    if name == "rmw_fastrtps_cpp":
        return Finding("ros", "middleware", OK, name)
    return Finding("ros", "middleware", NOTE, name, "wm is tuned for rmw_fastrtps_cpp; others work, less tried")


def _check_messages(folder: Path) -> Finding:
    try:
        from rclpy.serialization import deserialize_message, serialize_message
        from wm_msgs.msg import SceneGraph

        deserialize_message(serialize_message(SceneGraph(class_names=["x"])), SceneGraph)
    except Exception as error:
        return Finding("ros", "wm_msgs", ERROR, f"built, but does not work: {first_line(error)}", SETUP)
    return Finding("ros", "wm_msgs", OK, f"built and importable ({folder})")


def check_fastdds_profile(file: str, variable: str = "FASTDDS_DEFAULT_PROFILES_FILE") -> list[Finding]:
    """Whether shared memory is large enough for images; ``variable``: what names the file to this Fast DDS."""
    how = f"set {variable} to wm_bringup/config/fastdds.xml (tools/env.sh does)"
    if os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp") != "rmw_fastrtps_cpp":
        return []
    if not file:
        found = "none in use: Fast DDS's own shared memory is smaller than an image, most images will be lost"
        return [Finding("ros", "Fast DDS profile", WARNING, found, how)]
    try:
        root = ElementTree.parse(file).getroot()
    except (OSError, ElementTree.ParseError) as error:
        return [Finding("ros", "Fast DDS profile", ERROR, f"{file}: {error}", how)]
    texts = [(e.text or "").strip() for e in root.iter() if e.tag.endswith("segment_size")]
    sizes = [int(text) for text in texts if text.isdigit()]
    largest = max(sizes, default=0)
    try:
        free = shutil.disk_usage("/dev/shm").free
    except OSError:
        free = 0
    values = {"file": file, "segment_bytes": largest, "shm_free_bytes": free}
    text = f"{file} (segments of {largest / 2**20:.0f} MiB, {free / 2**20:.0f} MiB free in /dev/shm)"
    if largest < 4 * _IMAGE_BYTES:
        return [Finding("ros", "Fast DDS profile", WARNING, text, f"images will be lost; {how}", values)]
    if free < 2 * largest:
        advice = "more nodes will fail to start or fall back to UDP; free /dev/shm (docker run --shm-size=1g)"
        return [Finding("ros", "Fast DDS profile", WARNING, text, advice, values)]
    return [Finding("ros", "Fast DDS profile", OK, text, values=values)]


def check_graphics() -> list[Finding]:
    """Whether MuJoCo can render here, tried in a process of its own: a broken driver may end it."""
    backend = os.environ.get("MUJOCO_GL", "")
    label = f"MUJOCO_GL={backend or 'unset'}"
    begin = time.monotonic()
    try:
        done = subprocess.run([sys.executable, "-c", _GL_PROBE], capture_output=True, text=True, timeout=60)
    except subprocess.TimeoutExpired:
        return [Finding("graphics", "rendering", ERROR, f"{label}: hangs", "try: MUJOCO_GL=osmesa wm doctor")]
    seconds = time.monotonic() - begin
    if done.returncode == 0 and "rendered" in done.stdout:
        return [Finding("graphics", "rendering", OK, f"{label}: works ({seconds:.1f} s)")]
    lines = (done.stderr or done.stdout).strip().splitlines() or [f"exit status {done.returncode}"]
    other = "egl" if backend != "egl" else "osmesa"
    advice = f"the simulator cannot draw; install libegl1 and libgl1-mesa-dri, or try: MUJOCO_GL={other} wm doctor"
    return [Finding("graphics", "rendering", ERROR, f"{label}: {lines[-1]}", advice)]


def first_line(error: BaseException) -> str:
    """The first line of an error's text; its type, where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
