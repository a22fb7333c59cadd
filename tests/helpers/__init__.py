"""What several test modules share: waiting, artifacts of a user's own, servers and runs that stand in for real ones."""
