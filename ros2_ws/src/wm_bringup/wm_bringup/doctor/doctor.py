"""``wm doctor``: what is installed, what is used and why, and what to do about what is missing.

Each finding is ok, a note, a warning (something will not be as good as it could) or an error (something needed is
missing or wrong); errors and warnings say what to do. The checks here are of the installation and need no running
graph; ``doctor_graph`` looks at topics and frames.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from wm_bringup.doctor.findings import ERROR, NOTE, OK, WARNING, Finding
from wm_bringup.environment import make_console, prefixes, share_folder
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
        return Finding("ros", "rclpy", ERROR, f"does not import: {_first_line(error)}", SETUP)
    if name == "rmw_fastrtps_cpp":
        return Finding("ros", "middleware", OK, name)
    return Finding("ros", "middleware", NOTE, name, "wm is tuned for rmw_fastrtps_cpp; others work, less tried")


def _check_messages(folder: Path) -> Finding:
    try:
        from rclpy.serialization import deserialize_message, serialize_message
        from wm_msgs.msg import SceneGraph

        deserialize_message(serialize_message(SceneGraph(class_names=["x"])), SceneGraph)
    except Exception as error:
        return Finding("ros", "wm_msgs", ERROR, f"built, but does not work: {_first_line(error)}", SETUP)
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


def check_inference() -> list[Finding]:
    """Which runtime ``backend: auto`` takes here, and why not the others."""
    from wm_core.inference.backends import available_backends

    statuses = available_backends()
    chosen = next((status.name for status in statuses if status.available), None)
    findings = [
        Finding(
            "inference",
            status.name,
            OK if status.available else NOTE,
            f"{status.reason}{'; in use (first that works)' if status.name == chosen else ''}",
            values={"in_use": status.name == chosen},
        )
        for status in statuses
    ]
    if chosen is None:
        findings.append(Finding("inference", "runtime", ERROR, "none works", SETUP))
    return findings


def check_engines() -> list[Finding]:
    """The TensorRT engines that are kept for the GPU of this machine: of what they are, and whether still of use."""
    from wm_core.inference import engine_cache, engine_file

    findings = []
    for path, head in engine_cache.cached():
        if not isinstance(head, engine_file.EngineFile):
            advice = f"it is built again when it is needed; to be rid of it: rm {path}"
            findings.append(Finding("engines", path.name, WARNING, _first_line(head), advice))
            continue
        key = head.key
        fits, why = engine_cache.state_of(head)
        found = (
            f"{key.runtime} {key.runtime_version}, {key.gpu or ', '.join(key.architectures)}, {key.precision}, "
            f"{head.size / 2**20:.1f} MiB, built in {head.build_seconds:.1f} s; {why}"
        )
        values = {"file": str(path), "bytes": head.size, "fits": fits, "source": head.source}
        findings.append(Finding("engines", path.name, OK if fits else NOTE, found, values=values))
    if not findings:
        findings.append(Finding("engines", "cache", NOTE, f"none in {engine_cache.cache_folder()}"))
    return findings


def check_models() -> list[Finding]:
    """The trained models that came with wm: whether they are there, are those of their cards, and load."""
    from wm_perception.models.files import SHIPPED, ModelError, sha256, shipped_model
    from wm_perception.models.loading import load_shipped

    findings = []
    for name in SHIPPED:
        path = shipped_model(name)
        if path is None:
            advice = f"to have it: make train-{name}"
            findings.append(Finding("models", name, NOTE, f"not installed; {name} auto is geometric", advice))
            continue
        digest = sha256(path)
        values: dict[str, Any] = {"file": str(path), "sha256": digest, "bytes": path.stat().st_size, "loads": False}
        variants = {p.name: sha256(p) for p in sorted(path.parent.glob(f"{name}_*.onnx"))}
        values["precisions"] = variants
        found = f"{path} (sha256 {digest})"
        try:
            begin = time.monotonic()
            load_shipped(name)
            values["loads"] = True
            found += f", loads in {1e3 * (time.monotonic() - begin):.0f} ms"
        except ModelError as error:
            advice = f"perception refuses it; train it again (make train-{name}), or set {name}: geometric"
            findings.append(Finding("models", name, ERROR, f"{_first_line(error)} (sha256 {digest})", advice, values))
            continue
        wrong = [f for f, d in {path.name: digest, **variants}.items() if _stated_sha256(path, f) != d]
        if wrong:
            card = path.with_suffix(".json").name
            stated = _stated_sha256(path, wrong[0])
            file = "file" if wrong[0] == path.name else wrong[0]
            what = f"its card {card} is of a {file} with sha256 {stated}" if stated else f"no card {card}"
            if wrong[0] != path.name and not stated:
                what = f"its card {card} does not have {wrong[0]}"
            advice = "the card's figures may not hold for it; write both with one training run"
            findings.append(Finding("models", name, WARNING, f"{found}; {what}", advice, values))
            continue
        findings.append(Finding("models", name, OK, found, values=values))
    return findings


def _stated_sha256(model: Path, file: str) -> str:
    """What the card beside a model says of one of its files; empty where it says nothing."""
    try:
        card = json.loads(model.with_suffix(".json").read_text(encoding="utf-8"))
        return str(card["files"][file]["sha256"])
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def check_dynamics_model() -> list[Finding]:
    """The learned dynamics that came with wm: whether it is there, is that of its card, and loads."""
    from wm_core.inference.base import InferenceError
    from wm_dynamics.contact_step.network import DynamicsNetwork, default_model
    from wm_perception.models.files import sha256

    path = default_model()
    if not path.is_file():
        advice = "imagination's auto takes physics without it; to have it: make train-dynamics"
        return [Finding("models", "dynamics", NOTE, "not installed", advice)]
    digest = sha256(path)
    values: dict[str, Any] = {"file": str(path), "sha256": digest, "bytes": path.stat().st_size, "loads": False}
    found = f"{path} (sha256 {digest})"
    try:
        begin = time.monotonic()
        DynamicsNetwork(path, quick=True)
        values["loads"] = True
        found += f", loads in {1e3 * (time.monotonic() - begin):.0f} ms"
    except InferenceError as error:
        advice = "imagination's auto takes physics; train it again (make train-dynamics)"
        return [Finding("models", "dynamics", ERROR, f"{_first_line(error)} (sha256 {digest})", advice, values)]
    stated = _stated_sha256(path, path.name)
    if stated != digest:
        card = path.with_suffix(".json").name
        what = f"its card {card} is of a file with sha256 {stated}" if stated else f"no card {card}"
        advice = "the card's figures may not hold for it; write both with one training run"
        return [Finding("models", "dynamics", WARNING, f"{found}; {what}", advice, values)]
    return [Finding("models", "dynamics", OK, found, values=values)]


def check_caches() -> list[Finding]:
    """The folders in which compiled code and engines are kept: without them every start compiles anew."""
    from wm_core.inference import engine_cache
    from wm_core.private_folder import UntrustedFolderError, check_folder
    from wm_dynamics.contact_step import compile_cache

    findings = []
    for name, folder, cost in (
        ("compiled step", compile_cache.cache_folder(), "the first request of every start waits for the compiler"),
        ("engines", engine_cache.cache_folder(), "GPU engines are built at every start"),
    ):
        files = [p for p in folder.rglob("*") if p.is_file()] if folder.is_dir() else []
        size = sum(p.stat().st_size for p in files)
        existing = next(p for p in (folder, *folder.parents) if p.exists())
        values = {"folder": str(folder), "files": len(files), "bytes": size}
        if not os.access(existing, os.W_OK | os.X_OK):
            advice = f"make {existing} writable, or name another folder (NUMBA_CACHE_DIR, WM_ENGINE_CACHE)"
            findings.append(Finding("caches", name, WARNING, f"{folder} cannot be written: {cost}", advice, values))
            continue
        try:
            check_folder(folder)
        except UntrustedFolderError as error:
            found, _, advice = str(error).partition("; run: ")
            findings.append(Finding("caches", name, WARNING, f"{found}: {cost}", advice, values))
            continue
        what = f"{len(files)} files, {size / 2**20:.1f} MiB" if files else "empty: filled at the first use"
        findings.append(Finding("caches", name, OK, f"{folder} ({what})", values=values))
    return findings


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def examine(graph: Callable[[], list[Finding]] | None = None, installation: bool = True) -> list[Finding]:
    """All findings; ``graph`` listens to topics, where ROS is there. A check that fails is a finding."""
    findings: list[Finding] = []
    checks: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("python", check_python),
        ("ros", check_ros),
        ("graphics", check_graphics),
        ("inference", check_inference),
        ("models", check_models),
        ("models", check_dynamics_model),
        ("engines", check_engines),
        ("caches", check_caches),
    ]
    if not installation:
        checks.clear()
    if graph is not None:
        checks.append(("topics", graph))
    for section, check in checks:
        if section == "topics" and any(f.section == "ros" and f.level == ERROR for f in findings):
            findings.append(Finding("topics", "all", NOTE, "not listened to: ROS does not work yet"))
            continue
        try:
            findings += check()
        except Exception as error:
            findings.append(Finding(section, "check", ERROR, f"failed: {type(error).__name__}: {error}", SETUP))
    return findings


def report_json(findings: Sequence[Finding]) -> str:
    """The findings as JSON, with ``ok``: no error among them."""
    return json.dumps(
        {"ok": all(f.level != ERROR for f in findings), "findings": [asdict(f) for f in findings]}, indent=1
    )


def print_report(findings: Sequence[Finding]) -> None:
    """The findings as a table, and then what to do."""
    from rich.markup import escape
    from rich.table import Table

    console = make_console()
    colors = {OK: "green", NOTE: "dim", WARNING: "yellow", ERROR: "bold red"}
    table = Table(box=None, pad_edge=False)
    for heading in ("", "what", "state", "found"):
        table.add_column(heading, overflow="fold")
    section = ""
    for f in findings:
        color = colors[f.level]
        table.add_row(
            escape(f.section if f.section != section else ""),
            escape(f.name),
            f"[{color}]{f.level}[/]",
            escape(f.found),
        )
        section = f.section
    console.print(table)
    todo = [f for f in findings if f.level in (WARNING, ERROR) and f.advice]
    if todo:
        console.print("\nWhat to do")
    for f in todo:
        console.print(
            f"[{colors[f.level]}]{f.level}[/] {escape(f.name)}: {escape(f.found)}\n        {escape(f.advice)}"
        )
    errors = sum(f.level == ERROR for f in findings)
    warnings = sum(f.level == WARNING for f in findings)
    console.print(f"\n{errors} errors, {warnings} warnings" if errors or warnings else "\nEverything is in order.")
