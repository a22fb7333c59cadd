"""Reading what processes use while a trial runs."""
