"""Builds the project's site from what the repository has: stored runs, the registry of models, texts and notebooks."""
