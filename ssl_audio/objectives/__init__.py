"""Objectives: what is hidden, what is asked, what it costs."""
