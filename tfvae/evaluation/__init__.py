"""From a model and held-out data to values per user, and to means with a standard error."""
