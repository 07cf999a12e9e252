"""From trained weights to what runs on a robot: ONNX in several precisions, TensorRT engines, and a parity report."""
