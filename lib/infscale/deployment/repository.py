"""Triton's model repositories: copies of a model with settings of its own.

A model's configuration (``config.pbtxt``) is protobuf text, and is edited as such: a group of instances that is written
behind it would be a further one, any other field an error, and behind a comment without a line end nothing at all.
"""

from collections.abc import Mapping
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


def models(repository: Path) -> list[Path]:
    """Return the folders of a repository's models, in the order of their names."""
    return sorted(file.parent for file in repository.glob(f"*/{CONFIG}"))


def only_model(repository: Path) -> str:
    """Return the name under which the one model of a repository is served.

    Raises:
        ConfigError: it holds none, or several.
    """
    names = [folder.name for folder in models(repository)]
    if len(names) != 1:
        found = ", ".join(names) or "none"
        raise ConfigError(f"model={str(repository)!r}: its models are {found}; accepted: a repository of one model")
    return served_name(names[0])


def read_config(file: Path) -> Any:
    """Return a model's configuration as a message ``ModelConfig``.

    Raises:
        ConfigError: the file is no such configuration.
        OSError: it cannot be read.
    """
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2  # type: ignore[import-untyped]

    config = model_config_pb2.ModelConfig()
    try:
        return text_format.Parse(file.read_text(encoding="utf-8"), config)
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not the configuration of a Triton model: {error}") from error


def copy(source: Path, model: str, repository: Path, settings: Settings) -> None:
    """Copy the model that is served as ``model`` from one repository into another, with settings of its own.

    Raises:
        ConfigError: its configuration cannot be read, or excludes a setting.
        DeploymentError: it cannot be copied.
    """
    folder = next((one for one in models(source) if served_name(one.name) == model), source / model)
    try:
        copy_tree(folder, repository / model)
        if settings != Settings() or folder.name != model:
            _edit(repository / model / CONFIG, settings, {folder.name: model})
    except OSError as error:
        raise DeploymentError(f"cannot read the model {model} of the repository {source}: {error}") from error


def _edit(file: Path, settings: Settings, served: Mapping[str, str]) -> None:
    """Write settings into a configuration, and the name under which its model is served."""
    from google.protobuf import text_format

    config = read_config(file)
    config.name = served.get(config.name, config.name)
    settings.apply(config)
    file.write_text(text_format.MessageToString(config), encoding="utf-8")
