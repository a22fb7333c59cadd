"""A candidate against a reference: worse, not worse, or undecided."""
