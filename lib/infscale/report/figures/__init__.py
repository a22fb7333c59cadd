"""Figures: numbers, drawing, caption and alternative text."""
