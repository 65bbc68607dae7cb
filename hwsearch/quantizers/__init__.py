"""How a network becomes integers: quantizers, the supernet that runs at every assignment, its training and folding.

Nothing here knows what hardware costs; accuracy and price meet first in `study` and `finalizer`.
"""
