"""The load engine: bytes out, bytes in, timestamps. It knows no models, no frameworks and no statistics.

:func:`infscale.load.engine.run.run` is the way in; this file imports nothing, so that an engine process starts fast.
"""
