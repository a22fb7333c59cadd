"""Checks of requests before anything is deployed: encodings, versions of HTTP, compression, sizes."""

from infscale.errors import ConfigError, one_of
from infscale.models.reference import inputs, model
from infscale.payloads.encoders import Interface
from infscale.vocabulary import HTTP

MOST_ROWS = 1 << 20
"""Most rows of one request, whatever their size."""


def most_rows(interface: Interface, model_name: str) -> int:
    """Return how many rows of a reference model one request may carry, apart from the limit in bytes."""
    return 1 if interface.one_file and model(model_name).dtype == "bytes" else MOST_ROWS


def check_http(interface: Interface, http: str) -> None:
    """Check that some server of this kind speaks a version of HTTP over REST in clear text.

    Raises:
        ConfigError: none does.
    """
    if one_of("http", http, HTTP) not in interface.http:
        accepted = ", ".join(interface.http)
        name = {"2": "HTTP/2"}.get(http, f"HTTP/{http}")
        raise ConfigError(
            f"http={http!r}: {interface.name}'s REST does not speak {name} in clear text; accepted: {accepted}"
        )


def check_gzip(interface: Interface, protocol: str, *, gzip: bool) -> None:
    """Check that compressed requests are decompressed over ``protocol``, if they are asked for.

    Raises:
        ConfigError: the server would hand compressed bytes to its model.
    """
    if gzip and protocol not in interface.gzip:
        raise ConfigError(f"gzip=True: {interface.name} takes no compressed body over {protocol}; accepted: False")


def check_batch(interface: Interface, protocol: str, encoding: str, model_name: str, batch: int) -> None:
    """Check that a request of ``batch`` rows of a reference model fits into a message.

    The size is reckoned from a request of eight rows.

    Raises:
        ConfigError: it does not fit; the message gives the largest batch that does.
    """
    if batch > most_rows(interface, model_name):
        raise ConfigError(f"batch={batch}: {interface.name} takes one row of {model_name} in a request; accepted: 1")
    count = min(8, most_rows(interface, model_name))
    rows = inputs(model_name, count)
    body = interface.payload(protocol, model_name, rows, encoding=encoding, batch=count).bodies[0]
    size, limit = len(body) / count * batch, interface.message_bytes
    if batch < 1 or size > limit:
        most = int(batch * limit / size) if size > 0 else 1
        raise ConfigError(
            f"batch={batch}: a request of about {max(size, 0) / 2**20:.0f} MiB passes {interface.name}'s limit of "
            f"{limit >> 20} MiB; accepted with {encoding}: 1 to {most}"
        )


def check(
    interface: Interface,
    protocol: str,
    model_name: str,
    *,
    encoding: str = "",
    batch: int = 1,
    http: str = "1.1",
    gzip: bool = False,
) -> None:
    """Check that a server of this kind takes such requests for a reference model; "" is the default encoding.

    Raises:
        ConfigError: it does not; the message gives the accepted values.
    """
    encoding = interface.encoding(protocol, model(model_name).dtype, encoding)
    check_http(interface, http)
    check_gzip(interface, protocol, gzip=gzip)
    check_batch(interface, protocol, encoding, model_name, batch)
