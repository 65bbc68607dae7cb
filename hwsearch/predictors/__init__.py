"""How a dynamic model picks a menu entry for an input: one file per kind of policy, and the run-time governor.

Policies learn from cached per-sample losses of the menu's entries; no gradient passes through the backbone.
"""
