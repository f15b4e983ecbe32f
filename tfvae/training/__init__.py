"""From settings and a split to a trained model in a run folder."""
