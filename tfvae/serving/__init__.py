"""From a trained model to recommendations, in this process or as a SavedModel."""
