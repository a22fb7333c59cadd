"""Triton's model repositories: which models they hold, and copies of one with settings of its own.

A model's configuration (``config.pbtxt``) is protobuf text, and is edited as such: a group of instances that is written
behind it would be a further one, any other field an error, and behind a comment without a line end nothing at all.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infscale.deployment.framework import served_name
from infscale.deployment.processes.folder import copy_tree
from infscale.errors import ConfigError, DeploymentError

CONFIG = "config.pbtxt"
"""Name of the file with a model's configuration."""


@dataclass(frozen=True)
class Settings:
    """Settings of a model that take the place of those in its configuration; None leaves what that says.

    Attributes:
        instances: how many run side by side; where the configuration names GPUs, on each of them.
        batch_delay_us: longest wait for a batch to fill, µs.
        cache: whether the response cache is on.
    """

    instances: int | None = None
    batch_delay_us: int | None = None
    cache: bool = False

    def __post_init__(self) -> None:
        if self.instances is not None and self.instances < 1:
            raise ConfigError(f"instances={self.instances} is not a number of model instances; accepted: 1 or more")
        if self.batch_delay_us is not None and self.batch_delay_us < 0:
            raise ConfigError(f"batch_delay_us={self.batch_delay_us} is not a time; accepted: 0 or more microseconds")

    def remarks(self) -> list[str]:
        """Return what a label says of them."""
        many = "" if self.instances == 1 else "s"
        return [
            *([f"{self.instances} instance{many}"] if self.instances else []),
            *([f"batches within {self.batch_delay_us} µs"] if self.batch_delay_us is not None else []),
            *(["response cache"] if self.cache else []),
        ]

    def apply(self, config: Any) -> None:
        """Write them into a message ``ModelConfig``.

        Raises:
            ConfigError: the model's own scheduler excludes batches.
        """
        if self.instances is not None:
            groups = config.instance_group
            del groups[1:]
            if not groups:
                groups.add(kind="KIND_CPU")
            groups[0].count = self.instances
        if self.batch_delay_us is not None:
            scheduler = config.WhichOneof("scheduling_choice") or "dynamic_batching"
            if scheduler != "dynamic_batching":
                raise ConfigError(f"batch_delay_us={self.batch_delay_us}: the model has {scheduler}; accepted: None")
            config.dynamic_batching.SetInParent()  # a delay of 0 alone would not
            config.dynamic_batching.max_queue_delay_microseconds = self.batch_delay_us
        if self.cache:
            config.response_cache.enable = True


def models(source: Path) -> list[Path]:
    """Return the folders of a repository's models, in the order of their names; the folder of a model is its own."""
    if not source.is_dir():
        return []
    if _is_model(source):
        return [source]
    return sorted(folder for folder in source.iterdir() if folder.is_dir() and _is_model(folder))


def _is_model(folder: Path) -> bool:
    """Return whether a folder holds a model's configuration, or versions of it: folders whose names are numbers."""
    return (folder / CONFIG).is_file() or any(part.name.isdigit() and part.is_dir() for part in folder.iterdir())


def only_model(source: Path) -> str:
    """Return the name under which the one model of a repository, or that of a folder, is served.

    Raises:
        ConfigError: there is none, or there are several.
    """
    names = [folder.name for folder in models(source)]
    if len(names) != 1:
        found = ", ".join(names) or "none"
        accepted = f"a repository of one model, or the folder of one, such as {source / (names or ['name'])[0]}"
        raise ConfigError(f"model={str(source)!r}: its models are {found}; accepted: {accepted}")
    return served_name(names[0])


def read_config(file: Path) -> Any:
    """Return a model's configuration as a message ``ModelConfig``, an empty one where there is no file.

    Raises:
        ConfigError: the file is no such configuration.
        OSError: it cannot be read.
    """
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    config = model_config_pb2.ModelConfig()
    try:
        return text_format.Parse(file.read_text(encoding="utf-8"), config) if file.exists() else config
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not the configuration of a Triton model: {error}") from error


def copy(source: Path, model: str, repository: Path, settings: Settings) -> None:
    """Copy the model that is served as ``model`` from one repository into another, with settings of its own.

    The models that an ensemble consists of are copied with it.

    Raises:
        ConfigError: a configuration cannot be read, or excludes a setting.
        DeploymentError: a model cannot be copied.
    """
    from google.protobuf import text_format

    folder = next((one for one in models(source) if served_name(one.name) == model), source / model)
    file = repository / model / CONFIG
    try:
        copy_tree(folder, repository / model)
        config = read_config(file)
        for step in config.ensemble_scheduling.step:
            if not (repository / step.model_name).exists():
                copy(folder.parent, step.model_name, repository, Settings())
        if settings != Settings() or folder.name != model:
            config.name = model if config.name == folder.name else config.name
            settings.apply(config)
            file.write_text(text_format.MessageToString(config), encoding="utf-8")
    except OSError as error:
        raise DeploymentError(f"cannot read the model {model} of the repository {source}: {error}") from error
