"""Figures of compared arms: a row, a bar or a line for each."""
