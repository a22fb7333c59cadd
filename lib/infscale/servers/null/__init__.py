"""A server that does nothing, or answers at known times."""
