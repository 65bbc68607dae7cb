"""Where kernels are timed: an emulated core under a cycle model, this computer or another under its clock.

Every kernel is built alone, as a package that uses nothing else would build it; the code measured is the code that ships.
A new target is one file that follows the protocol of `target.py`, and its line in `known_targets.py`.
"""
