"""What frameworks take: sizes of messages, compression, versions of HTTP."""

from infscale.errors import ConfigError, one_of
from infscale.models.reference import inputs, model
from infscale.payloads.encoders import build
from infscale.vocabulary import HTTP


def most_rows(framework: str, name: str) -> int:
    """Rows that one request may carry: a file goes alone to TorchServe, whose bodies have no frame between files."""
    return 1 if framework == "torchserve" and model(name).dtype == "bytes" else MOST_ROWS


MOST_ROWS = 1 << 20

H2C = ("tfserving", "edge")
"""What may take REST on HTTP/2 in clear text. TensorFlow Serving does when it is the embedded one (Envoy), as the edge.

Tried with prior knowledge: Triton closes the connection, TorchServe answers in HTTP/1.1 with an error.
"""


def check_http(framework: str, http: str) -> None:
    """Whether some server of ``framework`` speaks this version of HTTP over REST in clear text.

    Raises:
        ConfigError: none does.
    """
    if one_of("http", http, HTTP) == "2" and framework not in H2C:
        raise ConfigError(f"http='2': {framework}'s REST does not speak HTTP/2 in clear text; accepted: 1.1")


NO_GZIP = (("torchserve", "rest"), ("edge", "rest"))
"""(framework, protocol) whose server hands a compressed body to the model as it is. Tried: TorchServe answers 400."""


def check_gzip(framework: str, protocol: str, *, gzip: bool) -> None:
    """Whether ``framework`` takes compressed requests over ``protocol``, if they are to be.

    Raises:
        ConfigError: it does not.
    """
    if gzip and (framework, protocol) in NO_GZIP:
        raise ConfigError(f"gzip=True: {framework} takes no compressed body over {protocol}; accepted: False")


LIMITS = dict.fromkeys(("tfserving", "torchserve", "triton", "edge"), 64 << 20)
"""Most bytes of a message that each framework takes as this project deploys it."""


def check_batch(framework: str, protocol: str, encoding: str, name: str, batch: int) -> None:
    """Whether a request of ``batch`` rows of a reference model fits into a message, by the size of one of eight rows.

    Raises:
        ConfigError: it does not; with the limit.
    """
    if batch > most_rows(framework, name):
        raise ConfigError(f"batch={batch}: {framework} takes one row of {name} in a request; accepted: 1")
    count = min(8, most_rows(framework, name))
    rows = inputs(name, count)
    size = len(build(framework, protocol, name, rows, encoding=encoding, batch=count).bodies[0]) / count * batch
    if batch < 1 or size > LIMITS[framework]:
        most = int(batch * LIMITS[framework] / size) if size > 0 else 1
        raise ConfigError(
            f"batch={batch}: a request of about {max(size, 0) / 2**20:.0f} MiB passes {framework}'s limit of "
            f"{LIMITS[framework] >> 20} MiB; accepted with {encoding}: 1 to {most}"
        )
