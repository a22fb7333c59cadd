"""Reference models with their exact outputs, their inputs, and the cache of their exports."""
