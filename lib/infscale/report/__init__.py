"""Figures, sentences, LaTeX and the page."""
