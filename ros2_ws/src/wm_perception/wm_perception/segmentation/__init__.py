"""Instances in an image: from geometry, from the trained network, or from a user's own ONNX file."""
