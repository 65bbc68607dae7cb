"""Writes the inner loops of the Cortex-M and Cortex-M0+ kernels, in assembly: `python -m hwsearch.kernels.loops`.

The files in c/cortex_m/generated/ and c/cortex_m0/generated/ are its output; tests hold them to it.
"""
