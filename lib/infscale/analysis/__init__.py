"""Statistics of stored trials; no server, no protocol."""
