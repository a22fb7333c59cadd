"""``infscale locust``: deploy a model, and serve the web page of Locust with users that send requests to it."""

from collections.abc import Callable
from typing import Any

from infscale.cli.options import Command, Number, Whole, option
from infscale.cli.serve import DEPLOYMENT, EXITS, deploying, say, until_interrupted, wait_for_end
from infscale.errors import DeploymentError, EngineError
from infscale.vocabulary import NAMES


def _run(
    framework: str,
    model: str,
    protocol: str,
    encoding: str,
    batch: int,
    timeout: float,
    host: str,
    port: int,
    **options: Any,
) -> None:
    requests = {"protocol": protocol, "encoding": encoding, "batch": batch}
    until_interrupted(
        lambda: explore(framework, model, say, requests, timeout, host, port, **deploying(options)),
    )


def explore(
    framework: str,
    model: str,
    say: Callable[[str], None],
    requests: dict[str, Any],
    timeout_s: float,
    host: str,
    port: int,
    **options: Any,
) -> None:
    """Deploy a model, serve Locust's page for it, report its address, and wait until interrupted.

    Args:
        framework, model, options: as :func:`infscale.deployment.deploy` takes them.
        say: gets what is served, and where.
        requests: factors of the requests, as of :class:`infscale.experiment.design.arm.Arm`.
        timeout_s: time from a request's sending to giving it up, s.
        host, port: where the page is served; port 0 takes a free one.

    Raises:
        MissingError: Locust is not installed.
        EngineError: the page cannot be served there, or Locust ended by itself.
        InfscaleError: as :func:`infscale.deployment.deploy`.
    """
    from infscale import deployment as servers
    from infscale.experiment.design.arm import Arm
    from infscale.experiment.trial import payload_of
    from infscale.load import locust_client

    locust_client.check_installed()
    arm = Arm(framework=framework, model=model, client="locust", **requests)
    with servers.deploy(framework, model, **options) as endpoint:
        payload = payload_of(endpoint, arm)
        url = f"{endpoint.scheme(arm.protocol)}://{endpoint.address(arm.protocol)}{payload.path}"
        headers = {**endpoint.headers, **payload.headers}
        with locust_client.page(
            url, payload.bodies, timeout_s=timeout_s, headers=headers, ca=endpoint.ca, host=host, port=port
        ) as (pid, address):
            sent = f"users send {NAMES[arm.protocol]} requests, {payload.encoding}"
            say(f"{endpoint.label}, model {endpoint.model}; {sent}\nLocust  {address}\n\nCtrl-C ends it.")
            wait_for_end(endpoint, pid)
            if not endpoint.processes():
                raise DeploymentError(f"{endpoint.label} ended by itself", endpoint.log_tail())
            raise EngineError("Locust ended by itself")


command = Command(
    "locust",
    _run,
    [
        *DEPLOYMENT,
        option("--protocol", section="Requests", default="rest"),
        option("--encoding", section="Requests", default=""),
        option("--batch", section="Requests", default="1", type=Whole(1)),
        option("--timeout", section="Requests", default="5", type=Number(above=0), note="Here from its sending."),
        option("--host", section="Page", default="127.0.0.1"),
        option("--port", section="Page", default="0", type=Whole(0, 65535)),
    ],
    help="Deploy a model on a real serving system, and serve the web page of Locust, on which users are started and "
    "watched. Users are a closed loop: each sends its next request when the last is answered. Nothing is recorded; for "
    "trials see Arm(client='locust').",
    exits=EXITS,
    examples=("infscale locust triton mlp", "infscale locust torchserve cnn --protocol grpc --port 8089"),
    notes="Locust is a load-testing framework (https://locust.io). Its times run from the sending of a request.",
)
