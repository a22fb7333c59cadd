"""Exporters of the reference model ``stream``, and what they put into a server."""
