"""Writes the inner loops of the Cortex-M and Cortex-M0+ kernels, in assembly: `python -m hwsearch.kernels.loops`.

The files c/cortex_m/*_loops.h and c/cortex_m0/*_loops.h are its output; tests hold them to it.
"""
