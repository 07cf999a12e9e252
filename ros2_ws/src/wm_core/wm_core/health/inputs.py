"""Faults of a robot's topics, stamps and calibration, from plain values.

Every check returns ``Finding``s, none where there is no fault. ``depth`` checks depth images.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from wm_core.camera import Camera
from wm_core.health.findings import Finding, Severity

SILENT_S = 2.0
"""Silence [s] after which a stream counts as not coming: cameras and odometry have 5 Hz and more."""

MIN_RATE_HZ = 4.0
"""Below this an object at 1 m/s moves by more than 25 cm between frames, farther than its own size."""

CLOCKS_APART_S = 1.0
"""Stamps may lag or lead the node's clock by this [s]: exposure, encoding and a network take less."""

_FROZEN_COUNT = 5
"""Equal stamps in succession that count as frozen. Larger reports later; smaller, drivers that repeat a frame."""
_SIMULATED_BEFORE_S = 1e8
"""Seconds since 1970 below which a stamp cannot be of a wall clock (March 1973): simulated, or since boot."""
_SHOWN = 6
"""Names that a finding lists at most."""
_PIXELS_THAT_MATTER = 1.0
"""Shift of the image's rim [px] up to which distortion is no fault: edges of depth images err by more."""


@dataclass(frozen=True)
class Publisher:
    """A publisher of a topic.

    Attributes:
        node: name with namespace. type_name: message type.
        mismatch: why its QoS does not match the subscription's; empty: it does.
    """

    node: str
    type_name: str
    mismatch: str = ""


@dataclass(frozen=True)
class Stream:
    """A topic that is read, with its publishers and messages.

    Attributes:
        name: short, e.g. color. role: for people, e.g. color images.
        topic, type_name: of the subscription. parameter: the parameter that names the topic.
        publishers: of this topic. candidates: other topics of its type.
        messages: count so far. age_s: since the last one, or since listening began where none came [s].
        silent_s: age from which the stream is silent [s].
    """

    name: str
    role: str
    topic: str
    type_name: str
    parameter: str = ""
    publishers: tuple[Publisher, ...] = ()
    candidates: tuple[str, ...] = ()
    messages: int = 0
    age_s: float = 0.0
    silent_s: float = SILENT_S

    @property
    def is_silent(self) -> bool:
        """Whether no message has come for ``silent_s``."""
        return self.age_s > self.silent_s


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def rank_candidates(topic: str, role: str, names: Sequence[str]) -> tuple[str, ...]:
    """Topics in the order of likeness to the one wanted: for depth first those with depth in their name, for color the
    others; then by similarity of names. Topics of the other kind come last, but stay, as a name may mislead.
    """
    wants_depth = "depth" in role

    def order(name: str) -> tuple[bool, float, str]:
        is_depth = any(word in name.lower() for word in ("depth", "disparity"))
        is_other = "image" in role and is_depth != wants_depth
        return is_other, -difflib.SequenceMatcher(None, topic, name).ratio(), name

    return tuple(sorted((n for n in dict.fromkeys(names) if n != topic), key=order))


def check_stream(stream: Stream) -> Finding | None:
    """Why no message of a stream comes: nobody publishes it, another type, a QoS that does not match, or silence."""
    s = stream
    kinds = sorted({p.type_name for p in s.publishers if p.type_name != s.type_name})
    who = _listed(sorted({p.node for p in s.publishers}))
    fitting = [p for p in s.publishers if p.type_name == s.type_name]
    if s.messages and not s.is_silent:
        return None
    if kinds and not fitting:
        run = f"name another topic ({s.parameter})" if s.parameter else "name another topic"
        if any(k.endswith("/CompressedImage") for k in kinds):
            run = "set color_transport or depth_transport, and give the topic without its last part"
        return Finding(f"wrong_type.{s.name}", Severity.ERROR, f"{s.topic} carries {', '.join(kinds)} (from {who})",
                       f"{s.type_name} ({s.role})", run)  # fmt: skip
    deaf = [p for p in fitting if p.mismatch]
    if deaf and len(deaf) == len(fitting):
        said = "; ".join(f"{p.node}: {p.mismatch}" for p in deaf)
        return Finding(
            f"qos.{s.name}",
            Severity.ERROR,
            f"{s.topic} ({s.role}) is published with a QoS that does not reach this node: {said}",
            run=f"change the publisher's QoS (ros2 topic info -v {s.topic})",
        )
    if not s.is_silent:
        return None
    if not s.publishers and s.messages:
        found = f"{s.topic} ({s.role}) stopped {s.age_s:.1f} s ago, and its publisher is gone"
        return Finding(f"stopped.{s.name}", Severity.ERROR, found, run="start it again; did its process end?")
    if not s.publishers:
        return _nobody(s)
    what = f"stopped {s.age_s:.1f} s ago" if s.messages else f"has sent nothing for {s.age_s:.1f} s"
    return Finding(
        f"silent.{s.name}",
        Severity.ERROR,
        f"{s.topic} ({s.role}) {what}, though {who} publishes it",
        run=f"ros2 topic hz {s.topic} on both machines; images need room in shared memory (wm doctor checks it)",
    )


TRANSPORTS = {"color": ("compressed",), "depth": ("compressedDepth", "compressed")}
"""Transports that can be read beside raw images, the best first: ``compressed`` depth may be JPEG, which cannot."""


def _nobody(s: Stream) -> Finding:
    found = f"nobody publishes {s.topic} ({s.role})"
    published = {c.rpartition("/")[2]: c for c in s.candidates if c.startswith(f"{s.topic}/")}
    transport = next((t for t in TRANSPORTS.get(s.name, ()) if t in published), "")
    if transport:
        compressed = published[transport]
        run = f"set {s.parameter.replace('_topic', '_transport')} to {transport}: {compressed} is published"
        return Finding(f"wrong_transport.{s.name}", Severity.ERROR, found, run=run)
    if published and len(published) == len(s.candidates):
        readable = " or ".join(("raw images", *TRANSPORTS.get(s.name, ())))
        found += f"; {_listed(tuple(published.values()))} cannot be read"
        return Finding(f"wrong_transport.{s.name}", Severity.ERROR, found, readable, "let the driver send that as well")
    if s.candidates:
        set_it = f"set {s.parameter} to one of them, or remap" if s.parameter else "remap to one of them"
        found += f"; topics with {s.type_name} are: {_listed(s.candidates)}"
        return Finding(f"wrong_topic.{s.name}", Severity.ERROR, found, run=set_it)
    found += f", and there is no other topic with {s.type_name}"
    return Finding(f"missing.{s.name}", Severity.ERROR, found, run="start its publisher; ros2 topic list -t shows all")


def check_streams(streams: Sequence[Stream]) -> list[Finding]:
    """As ``check_stream`` for each; where no camera is on the graph at all, one finding in place of one per stream."""
    findings = {s.name: f for s in streams if (f := check_stream(s)) is not None}
    camera = [s for s in streams if s.name in ("color", "depth", "camera_info")]
    missing = [s for s in camera if s.name in findings and findings[s.name].cause.startswith("missing.")]
    if len(missing) < 2 or len(missing) < len(camera):
        return list(findings.values())
    for s in missing:
        del findings[s.name]
    found = (
        f"no camera: nobody publishes {_listed([s.topic for s in missing])}, "
        f"and no other topic carries {' or '.join(sorted({s.type_name for s in missing}))}"
    )
    run = "start the camera driver; if it runs elsewhere: same ROS_DOMAIN_ID and RMW? (ros2 topic list -t)"
    return [Finding("no_camera", Severity.ERROR, found, run=run), *findings.values()]


def check_stamps(name: str, role: str, topic: str, stamps_ns: Sequence[int]) -> Finding | None:
    """Stamps (in order of arrival) that are zero or stand still."""
    if not stamps_ns:
        return None
    zeros = sum(stamp == 0 for stamp in stamps_ns)
    run = "the driver has to stamp its messages (header.stamp) with the time of exposure"
    if zeros > 0.5 * len(stamps_ns):
        found = f"{role} on {topic} have stamp 0 ({zeros} of the last {len(stamps_ns)})"
        return Finding(f"stamp_zero.{name}", Severity.ERROR, found, "the time of exposure", run)
    if len(stamps_ns) >= _FROZEN_COUNT and len(set(stamps_ns)) == 1:
        found = f"{role} on {topic} all have the same stamp, {stamps_ns[-1] * 1e-9:.3f} s ({len(stamps_ns)} messages)"
        return Finding(f"stamp_frozen.{name}", Severity.ERROR, found, "stamps that advance", run)
    return None


def check_clock(
    topic: str,
    stamp_ns: int,
    now_ns: int,
    use_sim_time: bool,
    clock_published: bool,
    tolerance_s: float = CLOCKS_APART_S,
) -> Finding | None:
    """Stamps that do not agree with this node's clock.

    Args:
        stamp_ns: of a message. now_ns: this node's clock when it came.
        use_sim_time: the node's clock is that of /clock. clock_published: whether somebody publishes /clock.
    """
    if use_sim_time and now_ns == 0:
        if clock_published:
            found = "use_sim_time is true and /clock is published, but no time has come on it"
            return Finding("no_clock", Severity.ERROR, found, run="is the simulator or player paused?")
        found = "use_sim_time is true, but nobody publishes /clock: this node's time stands at 0"
        return Finding(
            "no_clock", Severity.ERROR, found, run="start the simulator or player, or set use_sim_time to false"
        )
    if stamp_ns == 0:
        return None
    apart_s = (now_ns - stamp_ns) * 1e-9
    if abs(apart_s) <= tolerance_s:
        return None
    way = "behind" if apart_s > 0 else "ahead of"
    stamp_s, now_s = stamp_ns * 1e-9, now_ns * 1e-9
    found = (
        f"clocks are apart by {abs(apart_s):.1f} s: stamps on {topic} ({stamp_s:.1f} s) are {way} this node's "
        f"{'simulated' if use_sim_time else 'wall'} clock ({now_s:.1f} s)"
    )
    if not use_sim_time and stamp_s < _SIMULATED_BEFORE_S:
        if clock_published:
            run = "they are simulated time, and /clock is published: set use_sim_time to true"
        else:
            run = "simulated time, or since boot: publish /clock and set use_sim_time, or stamp by the system clock"
    elif use_sim_time and stamp_s > _SIMULATED_BEFORE_S > now_s:
        run = "they are wall time, the node's is simulated: set use_sim_time in the camera driver too, or false here"
    else:
        run = "synchronize the machines' clocks (chrony or PTP); of a recording, play its /clock and set use_sim_time"
    return Finding("clocks_apart", Severity.WARN, found, f"at most {tolerance_s:g} s", run)


def nearest_differences(a: ArrayLike, b: ArrayLike) -> NDArray[np.int64]:
    """For each stamp of ``a`` [ns] the difference of the nearest of ``b`` [ns], b - a."""
    first, second = np.asarray(a, dtype=np.int64), np.sort(np.asarray(b, dtype=np.int64))
    if not len(second):
        return np.zeros(0, dtype=np.int64)
    after = (
        np.clip(np.searchsorted(second, first), 1, len(second) - 1) if len(second) > 1 else np.zeros(len(first), int)
    )
    before = np.maximum(after - 1, 0)
    late, early = second[after] - first, second[before] - first
    return np.where(np.abs(late) < np.abs(early), late, early)


def check_synchronization(
    color_topic: str,
    color_ns: Sequence[int],
    depth_topic: str,
    depth_ns: Sequence[int],
    max_difference_s: float,
) -> Finding | None:
    """Color and depth whose stamps (the last of each, [ns]) do not make pairs.

    The slower stream counts: of a depth camera of 15 Hz under a color camera of 30 Hz half of the color images
    have no partner, and need none.
    """
    if len(color_ns) < 3 or len(depth_ns) < 3:
        return None
    both = (sorted(set(color_ns)), sorted(set(depth_ns)))
    if min(len(stamps) for stamps in both) < 2:
        return None
    periods = [(stamps[-1] - stamps[0]) / (len(stamps) - 1) for stamps in both]
    fewer, more = both if periods[0] > periods[1] else both[::-1]
    # Only the time for which both have stamps: those of the slower stream reach further back.
    margin = max(periods)
    shared = [stamp for stamp in fewer if more[0] - margin < stamp < more[-1] + margin] or fewer[-3:]
    offsets = np.abs(nearest_differences(shared[1:-1] or shared, more)) * 1e-9
    paired = float((offsets <= max_difference_s).mean())
    if paired >= 0.5:
        return None
    apart_s = float(np.median(offsets))
    period_s = float(np.median(np.diff(more))) * 1e-9 if len(more) > 1 else 0.0
    found = (
        f"color on {color_topic} and depth on {depth_topic} are not synchronized: stamps are {_duration(apart_s)} "
        f"apart (median of the nearest), {100.0 * paired:.0f} % make a pair"
    )
    if apart_s <= 0.6 * period_s:
        run = f"switch on frame synchronization in the driver, or raise max_stamp_difference_s to {1.2 * apart_s:.3f}"
    else:
        run = "are both stamped by one clock? let one driver stamp both (its frame synchronization)"
    severity = Severity.ERROR if paired == 0.0 else Severity.WARN
    return Finding("unsynchronized", severity, found, f"at most max_stamp_difference_s {max_difference_s:g} s", run)


def _duration(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1.0 else f"{1e3 * seconds:.1f} ms"


def check_intrinsics(topic: str, camera: Camera, image_size: tuple[int, int] | None = None) -> Finding | None:
    """Camera info that does not belong to these images, whose size is (width, height) [px]."""
    width, height = camera.width, camera.height
    if image_size is not None and (width, height) != tuple(image_size):
        sizes = f"{width}x{height}, the images are {image_size[0]}x{image_size[1]}"
        found = f"camera info on {topic} is for {sizes}"
        return Finding("camera_info_size", Severity.ERROR, found, run="publish the camera info of these images")
    # A principal point that far off the middle belongs to another size or crop.
    if abs(camera.cx - 0.5 * width) > 0.25 * width or abs(camera.cy - 0.5 * height) > 0.25 * height:
        point = f"({camera.cx:.1f}, {camera.cy:.1f})"
        found = f"camera info on {topic} has its principal point at {point} in an image of {width}x{height}"
        run = "is K of another resolution? publish that of these images"
        return Finding("intrinsics", Severity.WARN, found, "one near the middle", run)
    degrees = float(np.degrees(2.0 * np.arctan(0.5 * width / camera.fx)))
    if not 15.0 <= degrees <= 150.0:
        found = f"camera info on {topic} has fx {camera.fx:.1f} for a width of {width}: {degrees:.0f} degrees wide"
        return Finding("intrinsics", Severity.WARN, found, "15 to 150 degrees", "is K of another resolution?")
    return None


def distortion_shift_px(model: str, d: ArrayLike, camera: Camera) -> float:
    """Largest shift of the image's rim by distortion [px]; NaN where the model is not known.

    The rim's pixels are undistorted with OpenCV's models (plumb_bob and rational_polynomial; equidistant as fisheye).
    """
    coefficients = np.asarray(d, dtype=np.float64).reshape(-1)
    if not coefficients.size or not np.any(np.abs(coefficients) > 1e-9):
        return 0.0
    right, bottom = camera.width - 1.0, camera.height - 1.0
    u, v = np.linspace(0.0, right, 9), np.linspace(0.0, bottom, 9)
    sides = [np.column_stack([u, np.full(9, e)]) for e in (0.0, bottom)]
    sides += [np.column_stack([np.full(9, e), v]) for e in (0.0, right)]
    rim = np.concatenate(sides).reshape(-1, 1, 2)
    matrix = camera.matrix
    try:
        if model in ("equidistant", "fisheye"):
            moved = cv2.fisheye.undistortPoints(rim, matrix, coefficients[:4], P=matrix)
        elif model in ("plumb_bob", "rational_polynomial", ""):
            moved = cv2.undistortPoints(rim, matrix, coefficients, P=matrix)
        else:
            return float("nan")
    except cv2.error:
        return float("nan")
    shift = np.linalg.norm((moved - rim).reshape(-1, 2), axis=1)
    return float(shift.max()) if np.isfinite(shift).all() else float("nan")


def check_distortion(topic: str, model: str, d: ArrayLike, camera: Camera, corrected: bool = False) -> Finding | None:
    """A distorted camera whose images are used as if rectified; ``corrected``: they are undistorted before use."""
    if corrected:
        return None
    shift = distortion_shift_px(model, d, camera)
    if shift < _PIXELS_THAT_MATTER:
        return None
    much = f"moves pixels by up to {shift:.0f} px" if np.isfinite(shift) else "is of a model that is not known here"
    return Finding(
        "distorted",
        Severity.WARN,
        f"camera info on {topic} has lens distortion ({model or 'no model named'}), which {much}",
        "rectified images",
        "set rectify to auto or on, or use the rectified topics of image_proc (image_rect) and their camera info",
    )


def check_registration(color_topic: str, color_frame: str, depth_topic: str, depth_frame: str) -> Finding | None:
    """Depth in a frame other than color's, so not registered to it; no finding where a frame is not named."""
    if not color_frame or not depth_frame or color_frame.lstrip("/") == depth_frame.lstrip("/"):
        return None
    return Finding(
        "not_registered",
        Severity.WARN,
        f"depth on {depth_topic} is in frame {depth_frame!r}, color on {color_topic} in {color_frame!r}",
        "depth registered to color, in its frame",
        "use the driver's aligned depth (aligned_depth_to_color, depth_registered), or depth_image_proc register",
    )


def check_rate(topic: str, rate_hz: float) -> Finding | None:
    """A camera too slow for tracking; 0: not known."""
    if not 0.0 < rate_hz < MIN_RATE_HZ:
        return None
    found = f"{topic} comes at {rate_hz:.1f} Hz, so moving objects are lost between frames"
    run = "raise the camera's rate, or find what loses frames (ros2 topic hz at the driver)"
    return Finding("slow", Severity.WARN, found, f"at least {MIN_RATE_HZ:g} Hz", run)
