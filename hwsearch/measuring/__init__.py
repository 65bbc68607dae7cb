"""Filling a device's table: which shapes, on which target, under which clock, and when a row still holds.

Every kernel is built alone, as a package that uses nothing else would build it; what was measured is what ships. Knows no torch.
"""
