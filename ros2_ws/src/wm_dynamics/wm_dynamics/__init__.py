"""How the world moves, without ROS: MuJoCo worlds, the learned contact step, and the backends that roll out futures."""
