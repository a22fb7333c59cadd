"""A proxy that holds up what a server sends, and passes it on together."""
