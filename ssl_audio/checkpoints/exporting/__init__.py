"""Checkpoints in the formats of others: one file a format, and what all of them are made of and held against."""
