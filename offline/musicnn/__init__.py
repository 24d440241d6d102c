"""The published musicnn networks as ONNX graphs."""
