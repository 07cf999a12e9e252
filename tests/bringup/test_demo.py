"""The demonstration end to end: real processes, real middleware, every file that it promises."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

DEADLINE_S = 240.0
HYPOTHESES = {"factual", "remove", "heavier", "push", "pusher"}
KEYS = {"ade_m", "fde_m", "ade_straight_m", "fde_straight_m", "ade_still_m", "fde_still_m", "contacts"}


def start(out: Path) -> subprocess.Popen[str]:
    """The command in a process of its own, its output in a file."""
    with (out.parent / "output.txt").open("w") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "wm_bringup.cli", "demo", "--quick", "--out", str(out)],
            stdout=file,
            stderr=subprocess.STDOUT,
            text=True,
        )


def processes_with(text: str) -> list[str]:
    """Command lines of living processes that contain a text."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if text in line and state not in "ZX":
                found.append(line)
    return found


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a short demonstration that has been run."""
    out = tmp_path_factory.mktemp("demo") / "out"
    process = start(out)
    try:
        code = process.wait(DEADLINE_S)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(30)
    said = (out.parent / "output.txt").read_text()
    logs = "\n".join(f"== {p.name}\n{p.read_text()[-1500:]}" for p in sorted((out / "logs").glob("*.log")))
    assert code == 0, f"{said}\n{logs}"
    return out


@pytest.fixture(scope="module")
def metrics(demo: Path) -> dict:
    """Its figures for machines."""
    return json.loads((demo / "metrics.json").read_text())


def test_the_figures_have_the_promised_keys(metrics: dict) -> None:
    assert set(metrics) == {"hypotheses", "perception", "latency", "seconds_total"}
    assert set(metrics["hypotheses"]) >= HYPOTHESES
    for figures in metrics["hypotheses"].values():
        assert set(figures) == KEYS
        assert isinstance(figures["contacts"], bool)
        assert all(0.0 <= figures[key] < 5.0 for key in KEYS - {"contacts"})
    assert set(metrics["perception"]) == {
        "objects_true",
        "found",
        "phantom",
        "missed",
        "id_switches",
        "position_error_median_m",
    }
    assert set(metrics["latency"]) == {
        "camera_to_graph_median_s",
        "camera_to_graph_p95_s",
        "rate_hz",
        "rollouts_64_s",
        "rollouts_256_s",
    }


def test_the_figures_make_sense(metrics: dict) -> None:
    perception, latency = metrics["perception"], metrics["latency"]
    assert perception["found"] + perception["missed"] == perception["objects_true"] == 7
    assert perception["found"] >= 5 and perception["position_error_median_m"] < 0.01
    assert 0.0 < latency["camera_to_graph_median_s"] <= latency["camera_to_graph_p95_s"] < 10.0
    assert latency["rate_hz"] > 0.3
    assert 0.0 < latency["rollouts_64_s"] < latency["rollouts_256_s"] < 120.0
    assert 5.0 < metrics["seconds_total"] < DEADLINE_S


def test_imagination_beats_straight_lines_where_things_collide(metrics: dict) -> None:
    collisions = [h for h in metrics["hypotheses"].values() if h["contacts"]]
    assert collisions
    ours, straight = (sum(h[key] for h in collisions) for key in ("ade_m", "ade_straight_m"))
    assert ours < 0.6 * straight


def test_the_film_decodes(demo: Path) -> None:
    import av

    with av.open(str(demo / "demo.mp4")) as film:
        stream = film.streams.video[0]
        assert (stream.width, stream.height) == (1280, 720)
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        pictures = [frame.to_ndarray(format="gray") for n, frame in enumerate(film.decode(stream)) if n % 30 == 0]
    assert len(pictures) >= 5
    assert all(picture.std() > 10.0 for picture in pictures)


def test_the_stills_show_something(demo: Path) -> None:
    import cv2

    names = {path.stem for path in (demo / "stills").glob("*.png")}
    assert names >= {"perceiving", *(f"{h}_sheet" for h in HYPOTHESES)}
    for path in (demo / "stills").glob("*.png"):
        picture = cv2.imread(str(path))
        assert picture is not None and picture.std() > 10.0, path


def test_the_report_needs_nothing_but_itself(demo: Path) -> None:
    page = (demo / "report.html").read_text()
    assert page.startswith("<!doctype html>") and page.rstrip().endswith("</html>")
    assert not re.search(r'(?:src|href)="https?://', page)
    images = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    assert len(images) >= len(HYPOTHESES)
    assert all(base64.b64decode(image)[:3] == b"\xff\xd8\xff" for image in images)
    assert "data:video/mp4;base64," in page and page.count("<svg") >= len(HYPOTHESES)
    for link in re.findall(r'href="([^"#]+)"', page):
        assert (demo / link).exists(), link
    assert "nan" not in re.sub(r'(?s)base64,[^"]+|<svg.*?</svg>', "", page).lower().split()


def test_the_recording_is_a_bag(demo: Path) -> None:
    from rosbags.highlevel import AnyReader

    with AnyReader([demo / "demo.mcap"]) as bag:
        topics = {c.topic: c.msgcount for c in bag.connections}
        for topic in ("/camera/color/image_raw", "/camera/depth/image_raw", "/tf", "/clock", "/wm/scene_graph"):
            assert topics.get(topic, 0) > 5, topics
        graphs = [c for c in bag.connections if c.topic == "/wm/scene_graph"]
        _, _, data = next(iter(bag.messages(graphs)))
        assert bag.deserialize(data, graphs[0].msgtype).header.frame_id == "map"


def test_the_rollouts_are_there_as_data(demo: Path, metrics: dict) -> None:
    described = json.loads((demo / "rollouts.json").read_text())
    assert {h["name"] for h in described["hypotheses"]} == set(metrics["hypotheses"])
    with np.load(demo / "rollouts.npz") as arrays:
        count, times, things = len(described["hypotheses"]), len(arrays["times"]), len(arrays["object_ids"])
        for name in ("imagined", "straight", "still"):
            assert arrays[f"states_{name}"].shape == (count, 1, times, things, 13)
        assert arrays["true_states"].shape[:2] == (count, times)
        assert np.isfinite(arrays["states_imagined"]).all()
    assert (demo / "demo.rrd").stat().st_size > 100_000


def test_nothing_is_left_running(demo: Path) -> None:
    assert not processes_with(str(demo))


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(out)
    end = time.monotonic() + 90.0
    while time.monotonic() < end and not ((out / "logs/camera.log").exists() and (out / "demo.mcap").exists()):
        assert process.poll() is None, (tmp_path / "output.txt").read_text()
        time.sleep(0.1)
    time.sleep(1.0)  # in the middle of the camera's start
    groups = [int(line) for line in subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True
    ).stdout.split()]  # fmt: skip
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130, (tmp_path / "output.txt").read_text()
    assert groups
    for number in groups:
        with pytest.raises(ProcessLookupError):
            os.killpg(number, 0)
    assert not processes_with(str(out))
