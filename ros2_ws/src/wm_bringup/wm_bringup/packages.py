"""The Python packages of wm. Nothing else in here, so that what must start quickly may use it."""

PACKAGES = ("wm_core", "wm_dynamics", "wm_ros", "wm_perception", "wm_imagination", "wm_sim", "wm_bringup")
