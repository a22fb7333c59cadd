"""Models and servers of the user's own."""
