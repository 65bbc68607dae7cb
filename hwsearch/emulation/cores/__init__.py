"""One file, one core: its emulator model, compiler flags, cycle costs, where these are from, and how far they hold.

A new core is its file here and its line in `known_cores.py`, beside this folder.
"""
