"""Servers as supervised processes: their commands, containers, ports, folders and process ids."""
