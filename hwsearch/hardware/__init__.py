"""What a network costs on a device: profiles (measured tables), the cost model, budgets.

This room knows no torch: a table can be read, checked and priced without it.
"""
