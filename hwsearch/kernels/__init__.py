"""What runs: integer arithmetic specified in numpy and written in C, and its timing on real and emulated targets.

`reference.py` is the specification; `c/` holds one C function per file, and `c/portable/` the body every faster one is
tested against. This room knows no torch.
"""
