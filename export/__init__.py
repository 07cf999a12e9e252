"""Export of trained weights for robots: ONNX files in several precisions, TensorRT engines, and a parity report."""
