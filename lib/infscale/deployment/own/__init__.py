"""Models of the user's own, and servers that run already."""
