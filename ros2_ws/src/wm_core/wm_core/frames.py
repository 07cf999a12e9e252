"""Names of frames. Nothing else of ROS in here, so that a launch file may use it."""


def prefixed(prefix: str, frame: str) -> str:
    """A frame's name with a robot's prefix before it; a name that begins with / gets no prefix."""
    return frame.lstrip("/") if frame.startswith("/") or not frame else f"{prefix}{frame}"
