"""Scorers: an answer and what is known to be right, to a verdict with its reason (docs/SCORING.md). Torch-free."""
