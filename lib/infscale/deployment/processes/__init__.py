"""Servers as supervised processes: commands, ports, folders."""
