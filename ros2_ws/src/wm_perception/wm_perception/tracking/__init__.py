"""Objects over time: which observation is of which object, how it moves, what is remembered of it."""
