"""MuJoCo worlds made of bodies: the simulator, the physics backend, and what compiled models share."""
