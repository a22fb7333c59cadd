"""What ``--cluster`` says: where the workers are, and how many are wanted."""

import re
from dataclasses import dataclass, field

from infscale.errors import ConfigError

KINDS = {
    "local": "local, or local:4: processes of this machine",
    "tcp": "tcp://HOST:8786: a Dask scheduler that runs",
    "ssh": "ssh:HOST,HOST: machines by the names of ~/.ssh/config, the first of which also runs the scheduler",
    "slurm": "slurm, or slurm:PARTITION: jobs of SLURM, by Dask's jobqueue",
    "kubernetes": "kubernetes:NAMESPACE/NAME: a cluster of Dask's operator (untested)",
}
"""Kinds of clusters, each with the form that is accepted."""

SETTINGS = {
    "workers": "their number, as --workers",
    "host": "the address at which workers reach this machine, if not the one from which it reaches the scheduler",
    "python": "the interpreter on the other machines (ssh, slurm); the path of this one's by default",
}
"""Settings that may follow a ``?``, as in ``ssh:a,b?python=/opt/venv/bin/python``."""

MOST_WORKERS = 256
"""Most workers of a cluster."""

LOCAL = 2
"""Workers of ``local`` where no number is given."""


@dataclass(frozen=True)
class Spec:
    """A cluster to be used.

    Attributes:
        text: as given.
        kind: a key of :data:`KINDS`.
        address: of a scheduler that runs, ``tcp://host:port``; SLURM's partition; the namespace and name of a
            Kubernetes cluster; "" for none.
        hosts: of ``ssh``.
        workers: how many worker processes; 0 for all that there are.
        settings: keys of :data:`SETTINGS`.
    """

    text: str
    kind: str
    address: str = ""
    hosts: tuple[str, ...] = ()
    workers: int = 0
    settings: dict[str, str] = field(default_factory=dict)

    def with_workers(self) -> str:
        """Return a text that :func:`parse` takes for this cluster, the number of workers included."""
        place, _, query = self.text.partition("?")
        if not self.workers:
            return self.text
        parts = [part for part in query.split("&") if part and not part.startswith("workers=")]
        return f"{place}?{'&'.join([f'workers={self.workers}', *parts])}"


def parse(text: str, workers: int | None = None) -> Spec:
    """Return the cluster that ``text`` describes, with so many ``workers`` (None: as many as the text says).

    Raises:
        ConfigError: another text; the message lists the accepted forms.
    """
    place, _, query = text.partition("?")
    settings = _settings(text, query)
    workers = workers or _number(text, settings)
    if place == "local" or re.fullmatch(r"local:[0-9]{1,3}", place):
        given = int(place.partition(":")[2] or 0)
        if given and workers and given != workers:
            raise ConfigError(f"--cluster {text!r} and --workers {workers} differ; give one of them")
        return Spec(text, "local", workers=_count(text, workers or given or LOCAL), settings=settings)
    if re.fullmatch(r"tcp://(\[[0-9a-fA-F:]+\]|[^/:\[\]@ ]+):[0-9]{1,5}", place):
        return Spec(text, "tcp", place, workers=_count(text, workers or 0), settings=settings)
    kind, _, rest = place.partition(":")
    if kind == "ssh" and re.fullmatch(r"[^,/\s]+(,[^,/\s]+)*", rest):
        hosts = tuple(rest.split(","))
        if workers and workers % len(hosts):
            raise ConfigError(f"--workers {workers} cannot be shared by {len(hosts)} hosts; accepted: a multiple")
        return Spec(text, kind, hosts=hosts, workers=_count(text, workers or len(hosts)), settings=settings)
    if kind == "slurm" and re.fullmatch(r"[\w.-]*", rest):
        return Spec(text, kind, rest, workers=_count(text, workers or LOCAL), settings=settings)
    if kind == "kubernetes" and re.fullmatch(r"[\w.-]+/[\w.-]+", rest):
        return Spec(text, kind, rest, workers=_count(text, workers or 0), settings=settings)
    raise ConfigError(f"--cluster {text!r} is not known; accepted: {'; '.join(KINDS.values())}")


def _settings(text: str, query: str) -> dict[str, str]:
    settings = {}
    for part in filter(None, query.split("&")):
        name, equals, value = part.partition("=")
        if name not in SETTINGS or not value or not equals:
            accepted = ", ".join(f"{key}= ({meaning})" for key, meaning in SETTINGS.items())
            raise ConfigError(f"--cluster {text!r}: {part!r} is no setting; accepted: {accepted}")
        settings[name] = value
    return settings


def _number(text: str, settings: dict[str, str]) -> int | None:
    given = settings.get("workers", "1")
    if not re.fullmatch(r"[0-9]{1,4}", given) or given == "0":
        raise ConfigError(f"--cluster {text!r}: workers={given} is no number; accepted: 1 to {MOST_WORKERS}")
    return int(given) if "workers" in settings else None


def _count(text: str, workers: int) -> int:
    if not 0 <= workers <= MOST_WORKERS:
        raise ConfigError(f"--cluster {text!r} asks for {workers} workers; accepted: 1 to {MOST_WORKERS}")
    return workers
