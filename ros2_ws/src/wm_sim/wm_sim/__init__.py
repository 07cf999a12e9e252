"""Simulated RGB-D camera with ground truth and counterfactual re-simulation (MuJoCo); Gazebo worlds."""
