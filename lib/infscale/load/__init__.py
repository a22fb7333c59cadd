"""Schedules, the load engine and other clients."""
