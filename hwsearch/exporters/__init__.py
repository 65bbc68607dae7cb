"""Finished models as files: ONNX, a C package, and the bundle that holds and re-checks both."""
