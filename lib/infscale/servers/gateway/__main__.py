"""``python -m infscale.servers.gateway SETTINGS``: become Envoy with the gateway's application inside."""

import os
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Replace this process by Envoy; ``SETTINGS`` is a line of JSON (:mod:`infscale.servers.gateway.settings`)."""
    from infscale.servers.asgi import envoy
    from infscale.servers.gateway.settings import APP, ENVIRONMENT_KEY, from_json

    settings = from_json(sys.argv[1])
    config = envoy.configuration(APP, "127.0.0.1", settings.port)
    envoy.become(config, {**os.environ, ENVIRONMENT_KEY: settings.to_json()})


if __name__ == "__main__":
    main()
