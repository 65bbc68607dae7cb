"""What to learn: reference networks and readers of data."""
