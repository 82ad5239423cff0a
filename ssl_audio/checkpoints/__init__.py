"""Checkpoints: our file format, and the published ones."""
