"""Any C program on any modelled core: compilers, linked images, an instruction-set emulator, and what instructions cost.

Nothing here knows of networks, kernels or devices: a program goes in, values and cycles come out. An instruction set is a
decoder (`thumb.py`, `riscv.py`, `aarch64.py`) and an `Architecture`;
a core is one record in `cores/`, listed in `known_cores.py`.
"""
