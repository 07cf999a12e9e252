"""The Python packages of wm. Nothing else in here, so that what must start quickly may use it."""

ROS_FREE = ("wm_core", "wm_dynamics", "wm_planning")
PACKAGES = (*ROS_FREE, "wm_ros", "wm_perception", "wm_imagination", "wm_sim", "wm_bringup")
