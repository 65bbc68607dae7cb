"""What is computed: a network as a graph of priced operations, the precisions they may take, and menus of choices.

Nothing here knows what hardware costs or how anything is trained. torch enters only in `capture.py` and the two `aten` files
with which it reads exported programs, so that a finished network can be priced, run and exported on a machine without it.
"""
