"""Pictures of results, as files that need nothing else: the report of a run, a front, a profile, and the baselines beside them.

A library user can call them without the command line, which is why they stand apart from `service`.
"""
