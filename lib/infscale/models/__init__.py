"""Reference models, their truth, and their exports for each framework."""
