"""Writes the inner loops of the Cortex-M kernels, in assembly: `python -m hwsearch.kernels.loops`.

The files c/cortex_m/*_loops.h are its output; a test holds them to it.
"""
