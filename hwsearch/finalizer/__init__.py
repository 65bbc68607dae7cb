"""Training to the end under hard constraints, and the certificate of what the result costs."""
