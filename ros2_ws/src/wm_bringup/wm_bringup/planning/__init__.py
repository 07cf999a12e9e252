"""The push planner as a program, on the simulated table or a running graph."""
