"""Other load generators: how each is run, and what its output says."""
