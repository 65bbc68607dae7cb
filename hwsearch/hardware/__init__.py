"""What is written about a device: its profile (a header by hand, a table by machine), and what one inference costs or may cost.

Nothing is computed here that needs a network: prices are made in `pricing`, tables in `measuring`.
"""
