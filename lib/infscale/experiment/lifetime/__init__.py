"""One lifetime of the servers of a group of arms: a rough search, rounds at set rates, the search for λ*."""
