"""The two training loops, one shared step, and what surrounds it."""
