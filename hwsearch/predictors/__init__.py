"""How a dynamic model picks a menu entry for an input: one file per kind of policy, and the run-time governor.

Policies learn from cached per-sample losses of the menu's entries; no gradient passes through the backbone. A kind's file holds
what a search varies about it (`parameters`, `policy_of`) and how it learns (`fit`); `policy.py` lists the kinds. What a
controller computes stands not here but in `graph/controllers.py`, where whoever prices it without torch can reach it.
"""
