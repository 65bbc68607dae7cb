"""Training to the end under hard constraints, and the certificate of what the result costs.

`cgmq` moves bit-widths by gates and never loses a met budget; `limits` says in device units what a menu may cost and
refuses a budget that nothing can meet; `finetune` trains under both; `certificate` turns decisions on unseen inputs
into an upper bound on the mean. Accuracy and price meet here and in `study`, nowhere lower.
"""
