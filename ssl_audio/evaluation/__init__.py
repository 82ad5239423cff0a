"""Evaluation: what an encoder learnt, how fast it is, and pages about it."""
