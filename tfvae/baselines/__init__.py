"""Recommenders learnt in closed form; they score, save and export like the neural ones."""
