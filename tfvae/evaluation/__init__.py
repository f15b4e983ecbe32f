"""From a model and held-out data to values per user, and to statements with an error."""
