"""The Python packages of wm. Nothing else in here: programs that must start quickly import it."""

ROS_FREE = ("wm_core", "wm_dynamics", "wm_planning")
PACKAGES = (*ROS_FREE, "wm_ros", "wm_perception", "wm_imagination", "wm_sim", "wm_bringup")
