"""Data: raw files, interactions, splits, and batches of user rows."""
