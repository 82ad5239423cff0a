"""Training: Lightning modules, schedules and the run folder."""
