"""One file per kind of operation: its numpy body, which is the specification, and its record.

`op_kinds.OPS` lists them all; a new kind is a file here, a row there and in `graph/op.py`, and one entry for each of torch,
ATen, ONNX and C (`tests/test_op_kinds.py` says which).
"""
