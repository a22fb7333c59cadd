"""Exporters of the reference models, one for each framework; they run in processes of their own.

TensorFlow and torch are imported there only. ``torchserve_handler`` and ``triton_model`` are copied into what is
exported, and run inside the servers.
"""
