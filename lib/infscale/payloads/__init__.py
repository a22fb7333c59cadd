"""Tensors as request bodies."""
