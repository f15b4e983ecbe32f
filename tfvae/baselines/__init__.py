"""Recommenders fitted to the whole matrix at once; they score, save and export like the neural ones."""
