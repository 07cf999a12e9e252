"""Training of the models that wm ships: data from simulation, networks, export to ONNX, model cards."""
