"""From a trained model to recommendations for people."""
