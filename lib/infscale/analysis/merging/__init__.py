"""What is put together: runs of several machines, and rows of many files."""
