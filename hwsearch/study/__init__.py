"""The search: ask, price, evaluate, tell. Accuracy and price meet here.

`search.py` alone speaks Optuna, `pool.py` alone speaks Ray; `schedule.py` holds the rules for dead and slow workers apart from
both, so that they are tested on a simulated clock. `proposal.py` says what a trial's parameters mean, `preview.py`
builds menus by integer programme, `trial_log.py` makes a search survive its driver.
"""
