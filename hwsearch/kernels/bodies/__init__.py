"""One file per folder of C bodies: how its functions cut their work, hence their working memory and the turns of their loops.

The C code computes the same sizes.
"""
