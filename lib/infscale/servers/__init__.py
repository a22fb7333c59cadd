"""Deployments: real serving systems as supervised processes."""
