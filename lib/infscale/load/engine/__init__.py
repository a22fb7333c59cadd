"""The load engine: sends bytes on a schedule, receives bytes and notes times. It knows no models and no statistics.

Start it with :func:`infscale.load.engine.run.run`. This file imports nothing, so that an engine process starts fast.
"""
