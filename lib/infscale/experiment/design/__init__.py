"""What a run measures: arms, contrasts, sizes and time."""
