"""The parameters of the node ``sim_camera_node``."""

from __future__ import annotations

from dataclasses import dataclass

from wm_core.parameters import parameter


@dataclass(frozen=True)
class SimCameraParameters:
    """Parameters of the node ``sim_camera_node``."""

    scene: str = parameter("demo", "name of a scene of wm_sim, or path of a scene file", read_only=True)
    seed: int = parameter(0, "of the scene's colors, sizes, poses and of the depth noise", minimum=0, read_only=True)
    rate_hz: float = parameter(
        30.0,
        "frames published; the nearest of 30, 15, 10, 7.5, 6, ...",
        unit="1/s of simulated time",
        minimum=0.5,
        maximum=30.0,
        read_only=True,
    )
    width: int = parameter(640, "image width", unit="pixels", minimum=32, maximum=1920, read_only=True)
    height: int = parameter(480, "image height", unit="pixels", minimum=32, maximum=1080, read_only=True)
    real_time_factor: float = parameter(
        1.0, "simulated seconds per second; 0: as fast as possible", minimum=0.0, maximum=100.0
    )
    max_lead_s: float = parameter(
        0.0,
        "hold the world while it is further ahead of the newest message on `lead_topic` than this, so that a slow "
        "machine sees the world in slow motion rather than in a few frames; 0: never hold",
        unit="s of simulated time",
        minimum=0.0,
        maximum=60.0,
    )
    lead_topic: str = parameter("/wm/scene_graph", "wm_msgs/SceneGraph that `max_lead_s` looks at", read_only=True)
    duration_s: float = parameter(
        0.0,
        "simulated time after which `at_end` applies; 0: for ever",
        unit="s",
        minimum=0.0,
        maximum=86400.0,
        read_only=True,
    )
    at_end: str = parameter(
        "hold",
        "stop: the node ends; hold: the world stands still while time goes on; loop: the scene starts again",
        choices=("stop", "hold", "loop"),
    )
    depth_noise: bool = parameter(
        False, "errors of a structured-light depth camera (wm_sim.depth_noise)", read_only=True
    )
    depth_encoding: str = parameter("16UC1", "of the depth images", choices=("16UC1", "32FC1"))
    wait_for_subscriber: bool = parameter(
        False, "start the clock only when somebody has subscribed to both images", read_only=True
    )
    wait_timeout_s: float = parameter(
        60.0,
        "start after this long even if nobody has subscribed; 0: never",
        unit="s",
        minimum=0.0,
        maximum=86400.0,
        read_only=True,
    )
    ground_truth: bool = parameter(True, "publish the true scene graph")
    frame_prefix: str = parameter("", "put before the name of every frame, e.g. robot1/", read_only=True)
    clock: str = parameter(
        "publish",
        "publish: this simulator makes /clock; follow: it keeps to the /clock that another one makes",
        choices=("publish", "follow"),
        read_only=True,
    )
