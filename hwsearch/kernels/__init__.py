"""The C that ships, and what Python must know of it to call it, weigh it and place its memory.

`c/` holds one function per file; `c/portable/` has the body that every faster one is tested against. `catalogue.py` says which
function runs which operation, `layout.py` how tensors lie in memory, `bodies/` what each folder's functions need and how their
loops turn, `loops/` generates the assembly of inner loops. Timing these functions is `measuring`'s affair.
"""
