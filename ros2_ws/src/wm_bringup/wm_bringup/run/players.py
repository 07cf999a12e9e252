"""Players of recordings as processes: how a recording is played, and by which command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wm_bringup.run.inputs import PerceptionInputs
from wm_bringup.run.node_command import node_command
from wm_bringup.run.processes import Managed

WAITING = {"tf_timeout_s": 2.0}
"""Parameters of perception where a recording waits for it: then it may wait for what is still under way, too."""
_NOT_REPLAYED = ("/clock", "/diagnostics", "/rosout", "/parameter_events")


def replayed_topics(names: Sequence[str], namespace: str) -> list[str]:
    """Those of a recording's topics that are input: not what the nodes themselves will say again."""
    own = f"/{namespace.strip('/')}/"
    return [name for name in names if name not in _NOT_REPLAYED and not name.startswith(own)]


@dataclass(frozen=True)
class Playing:
    """How a recording is played.

    Attributes:
        rate: times as fast as recorded, where perception keeps up.
        lock_step: each frame is waited for until perception has reported on it; else the recording runs away from it.
        register, level: auto, on or off: color onto depth, the world z-up (see ``sources.recording``).
    """

    rate: float = 1.0
    lock_step: bool = True
    register: str = "auto"
    level: str = "auto"

    def __post_init__(self) -> None:
        for name in ("register", "level"):
            if getattr(self, name) not in ("auto", "on", "off"):
                raise ValueError(f"--{name}: got {getattr(self, name)!r}, expected auto, on or off")


def player_command(
    rgbd: Path | None,
    bag: Path | None,
    playing: Playing,
    remaps: Sequence[str],
    namespace: str,
    inputs: PerceptionInputs | None = None,
    subscribers: int = 1,
) -> list[str] | None:
    """Command line of the player of a recording; None where there is none.

    ``subscribers``: so many nodes hear the camera when all are there.

    Raises:
        ValueError: a recording that cannot be read, or that holds nothing to play.
    """
    inputs = inputs or PerceptionInputs()
    words = ["--speed", f"{playing.rate:g}", "--level", playing.level]
    words += ["--color-topic", inputs.color, "--depth-topic", inputs.depth, "--camera-info-topic", inputs.camera_info]
    words += ["--world-frame", inputs.world_frame]
    if playing.lock_step:
        words += [
            "--lock-step",
            namespace,
            "--subscribers",
            str(subscribers),
            "--max-stamp-difference",
            f"{inputs.max_stamp_difference_s:g}",
        ]
    if rgbd is not None:
        words += ["--register", playing.register]
        words += ["--camera-frame", inputs.camera_frame] if inputs.camera_frame else []
        return node_command("wm_bringup.sources.rgbd_folder", arguments=[str(rgbd), *words])
    if bag is None:
        return None
    from wm_bringup.sources.bag import Bag
    from wm_bringup.sources.playback import SourceError

    try:
        with Bag(bag) as opened:
            topics = replayed_topics([topic.name for topic in opened.choose([])], namespace)
    except SourceError as error:
        raise ValueError(str(error)) from error
    if not topics:
        raise ValueError(f"{bag} has no topic that the nodes read")
    if playing.lock_step and inputs.pose_source == "tf":
        words += ["--still-camera"]
    rules = [word for rule in remaps for word in ("--remap", rule)]
    return node_command("wm_bringup.sources.bag_player", arguments=[str(bag), *words, *rules, "--topics", *topics])


def player_notes(player: Managed) -> list[str]:
    """What a player said that it assumed or changed, and warned of."""
    lines = player.log.read_text(errors="replace").splitlines()
    return [line for line in lines if line.startswith(("note: ", "warning: "))]
