"""ROS-free core of wm: world state, cameras, geometry, interventions, inference runtimes."""
