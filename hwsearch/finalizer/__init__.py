"""Training to the end under hard constraints, and the certificate of what the result costs.

`finetune` is the whole; `limits` says in device units what a menu may cost and refuses a budget that nothing can meet;
`sensitivity` measures what each precision is worth; `cgmq` moves bit-widths by gates and never loses a met limit, and
`gated_training` trains weights along; `policy_ladder` and `certified_policy` hold the policy back as far as the mean budget
demands, and `certificate` proves the mean. Accuracy and price meet here and in `study`, nowhere lower.
"""
