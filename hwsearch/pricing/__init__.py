"""From a device's table to the price of a network: rows and what lies between them, sums, budgets, integer programmes.

`prices.py` gives the price of one row, `interpolation.py` of shapes that were not measured; `cost_model.py` sums a network,
`batch.py` millions of assignments at once; `knapsack.py` and `feasibility.py` ask what a budget leaves, `widening.py`
and `copies.py` what else a model could store. This room knows no torch.
"""
