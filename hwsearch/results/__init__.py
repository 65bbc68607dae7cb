"""What search and finalizer hand on: the Pareto front and the finished model, as records and as files.

They stand below the rooms that make them, so that a front can be priced again and a model exported without torch.
"""
