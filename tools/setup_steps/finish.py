"""The last steps: the wm command, the renderer, a first import of everything, and the compiled dynamics."""

from __future__ import annotations

import os
import platform
import subprocess
from typing import Mapping

from setup_steps.reporter import Reporter, last_line
from setup_steps.ros_choice import clean_environment
from setup_steps.settings import FORMAT, LOGS, REQUIREMENTS, ROOT, VENV, WORKSPACE, SetupError
from setup_steps.stamps import digest, stamped, write_stamp
from setup_steps.system_packages import install_system_packages

WRAPPER = """#!/usr/bin/env bash
# Written by `make setup`: the wm command with its environment, from any folder and with nothing sourced.
source "{root}/tools/env.sh" || exit 1
exec "{root}/.venv/bin/python" -m wm_bringup.cli "$@"
"""

GL_PROBE = (
    "import mujoco; c = mujoco.GLContext(16, 16); c.make_current(); "
    "mujoco.MjrContext(mujoco.MjModel.from_xml_string('<mujoco/>'), mujoco.mjtFontScale.mjFONTSCALE_100)"
)

IMPORT_PROBE = (
    "import rclpy, wm_core, wm_dynamics, wm_planning, wm_ros, wm_perception, wm_imagination, wm_sim, wm_bringup, "
    "tf2_msgs.msg, wm_msgs.msg, mujoco, cv2, onnxruntime, av; wm_msgs.msg.SceneGraph(); print('ok')"
)


def probe_rendering(env: Mapping[str, str]) -> str | None:
    """First of MuJoCo's headless back ends that starts here, or None."""
    for backend in ("egl", "osmesa"):
        done = subprocess.run(
            [str(VENV / "bin/python"), "-c", GL_PROBE], env={**env, "MUJOCO_GL": backend}, capture_output=True
        )
        if done.returncode == 0:
            return backend
    return None


def ensure_rendering(env: Mapping[str, str], reporter: Reporter) -> str:
    """Name of a rendering back end; installs Mesa's software one where EGL does not start and this user may."""
    backend = probe_rendering(env)
    if backend is None:
        try:
            install_system_packages(["libosmesa6"], reporter)
            backend = probe_rendering(env)
        except SetupError as error:
            print(f"set-up: warning: {error}", flush=True)
    if backend is None:
        print(
            "set-up: warning: MuJoCo can render with neither EGL nor OSMesa, so the simulated camera will not start "
            "(real cameras and recordings will); run: apt-get install libegl1 libgl1-mesa-dri libosmesa6",
            flush=True,
        )
    return backend or "egl"


def finish(ros: str, reporter: Reporter) -> None:
    """Writes the wm command and the choice of renderer, and imports everything once in the finished environment."""
    with reporter.step("the wm command, and a first import of everything"):
        wrapper = VENV / "bin/wm"
        wrapper.write_text(WRAPPER.format(root=ROOT))
        wrapper.chmod(0o755)
        env = clean_environment(os.environ, ros)
        (VENV / "wm_mujoco_gl").write_text(ensure_rendering(env, reporter) + "\n")
        check = f'source "{ROOT}/tools/env.sh" && exec python -c "{IMPORT_PROBE}"'
        try:
            reporter.run(["bash", "-c", check], env, "import.log")
        except subprocess.CalledProcessError as error:
            raise SetupError(
                f"what was installed does not import ({last_line(LOGS / 'import.log')})",
                "rclpy, wm_msgs and the packages to import",
                "less out/setup/import.log   (to start afresh: make distclean setup)",
            ) from error


def compile_dynamics(ros: str, reporter: Reporter) -> None:
    """Compiles the learned dynamics, so that the first start of the imagination need not; it also runs without."""
    sources = sorted((WORKSPACE / "src/wm_dynamics/wm_dynamics").rglob("*.py"))
    key = digest([FORMAT, platform.node(), *sources, REQUIREMENTS / "lock.txt"])
    if stamped("dynamics", key):
        return
    with reporter.step("the learned dynamics, compiled for this processor (half a minute the first time)"):
        command = f'source "{ROOT}/tools/env.sh" && exec python -m wm_dynamics.contact_step.compiled'
        try:
            reporter.run(["bash", "-c", command], clean_environment(os.environ, ros), "dynamics.log")
        except subprocess.CalledProcessError:
            print(
                f"set-up: warning: the learned dynamics cannot be compiled ({last_line(LOGS / 'dynamics.log')}), so it "
                "runs in ONNX Runtime, several times slower; see out/setup/dynamics.log",
                flush=True,
            )
    write_stamp("dynamics", key)
