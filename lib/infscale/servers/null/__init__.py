"""The null server: it does nothing but send a fixed reply, at once or at known times."""
