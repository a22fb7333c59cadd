"""If these fail, a Triton model of a user's own is served with other settings than were asked for, or not at all."""

import json
from pathlib import Path
from typing import Any

import pytest

from helpers.artifacts import TRITON_CONFIG, TRITON_MODEL
from infscale import deployment as servers
from infscale.deployment import triton
from infscale.deployment.client import fetch
from infscale.deployment.counters import statistics
from infscale.deployment.endpoint import ask
from infscale.deployment.repository import CONFIG, Settings, copy, models, only_model, read_config
from infscale.errors import ConfigError, DeploymentError
from infscale.payloads.tensors import Target


def repository(folder: Path, more: str = "", model: str = TRITON_MODEL) -> Path:
    """A repository with the model ``adds``, whose configuration ends in ``more``."""
    (folder / "adds" / "1").mkdir(parents=True)
    (folder / "adds" / "1" / "model.py").write_text(model)
    (folder / "adds" / CONFIG).write_text(TRITON_CONFIG.strip() + more)
    return folder


def edited(folder: Path, more: str, settings: Settings) -> Any:
    """The configuration of a copy with these settings."""
    copy(repository(folder / "source", more), "adds", folder / "copy", settings)
    return read_config(folder / "copy" / "adds" / CONFIG)


# ------------------------------------------------------------------------------------------ settings

TWO = "\ninstance_group [{ count: 2 kind: KIND_CPU }]"
GROUPS = "\ninstance_group { count: 2 kind: KIND_CPU }\ninstance_group [{ count: 5 kind: KIND_CPU }]"


@pytest.mark.parametrize("more", ["", TWO, GROUPS, f"{TWO} # no line end behind it", " # a comment"])
def test_as_many_instances_run_as_were_asked_for_whatever_the_configuration_says(tmp_path: Path, more: str) -> None:
    """Appended text was a further group beside the model's own, or a part of its last comment."""
    config = edited(tmp_path, more, Settings(instances=3))
    assert [(group.count, group.kind) for group in config.instance_group] == [(3, 2)], "2: KIND_CPU"
    assert (config.name, config.max_batch_size, len(config.input)) == ("adds", 8, 2), "the rest stays as it is"


@pytest.mark.parametrize("more", ["", " # a comment", "\ndynamic_batching { max_queue_delay_microseconds: 9 }"])
def test_batching_and_the_cache_take_the_place_of_what_the_configuration_says(tmp_path: Path, more: str) -> None:
    for delay in (0, 500):
        config = edited(tmp_path / str(delay), more, Settings(batch_delay_us=delay, cache=True))
        assert config.HasField("dynamic_batching")
        assert config.dynamic_batching.max_queue_delay_microseconds == delay
        assert config.response_cache.enable


def test_a_group_keeps_what_else_it_says(tmp_path: Path) -> None:
    more = "\ninstance_group [{ count: 2 kind: KIND_GPU gpus: [ 1 ] }]"
    (group,) = edited(tmp_path, more, Settings(instances=3)).instance_group
    assert (group.count, group.kind, list(group.gpus)) == (3, 1, [1])


def test_without_settings_a_configuration_is_copied_as_it_stands(tmp_path: Path) -> None:
    copy(repository(tmp_path / "source", " # mine"), "adds", tmp_path / "copy", Settings())
    assert (tmp_path / "copy" / "adds" / CONFIG).read_text() == TRITON_CONFIG.strip() + " # mine"


def test_a_scheduler_that_excludes_batches_is_named_and_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_delay_us=5: the model has sequence_batching"):
        edited(tmp_path, "\nsequence_batching { }", Settings(batch_delay_us=5))


def test_a_configuration_that_is_none_is_named_with_the_place_of_its_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.pbtxt is not the configuration of a Triton model: \d+:\d+"):
        edited(tmp_path, "\ninstances: 2", Settings(instances=3))


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match="cannot read the model none of the repository "):
        copy(repository(tmp_path / "source"), "none", tmp_path / "copy", Settings())


def test_a_label_says_what_was_asked_for() -> None:
    assert Settings().remarks() == []
    assert Settings(instances=1).remarks() == ["1 instance"]
    assert Settings(3, 500, True).remarks() == ["3 instances", "batches within 500 µs", "response cache"]


@pytest.mark.server
def test_triton_runs_three_instances_where_the_configuration_says_two(tmp_path: Path) -> None:
    with servers.deploy("triton", repository(tmp_path, TWO), instances=3) as endpoint:
        config = json.loads(fetch(endpoint.rest, "GET", "/v2/models/adds/config", timeout_s=10))
        assert [group["count"] for group in config["instance_group"]] == [3]
        assert "3 instances" in endpoint.label


# --------------------------------------------------------------------------------------------- copies


def test_a_read_only_repository_is_copied_so_that_an_ordinary_user_can_write_and_remove_it(tmp_path: Path) -> None:
    """Root may write whatever the modes say, so that they are looked at instead."""
    source = repository(tmp_path / "source")
    for path in (*source.rglob("*"), source):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        copy(source, "adds", tmp_path / "copy", Settings(instances=3))
    finally:
        for path in (source, *source.rglob("*")):
            path.chmod(0o755)
    copied = [*(tmp_path / "copy").rglob("*")]
    assert len(copied) == 4
    assert all(path.stat().st_mode & 0o600 == 0o600 for path in copied)
    assert all(path.stat().st_mode & 0o700 == 0o700 for path in copied if path.is_dir())


@pytest.mark.parametrize(("folder", "served"), [("a+b", "a+b"), ("my modèl", "my_mod_l"), ("v1.2", "v1.2")])
def test_a_model_is_served_under_a_name_that_a_url_can_hold(tmp_path: Path, folder: str, served: str) -> None:
    """Triton does not decode what is escaped: "a%2Bb" was another model, and unknown."""
    source = repository(tmp_path / "source")
    (source / "adds").rename(source / folder)
    config = source / folder / CONFIG
    config.write_text(config.read_text().replace('"adds"', f'"{folder}"'))
    assert only_model(source) == served
    copy(source, served, tmp_path / "copy", Settings())
    assert read_config(tmp_path / "copy" / served / CONFIG).name == served
    assert triton._rest_path(Target(served)) == f"/v2/models/{served}/infer"


@pytest.mark.server
@pytest.mark.parametrize("folder", ["a+b", "my modèl"])
def test_triton_serves_a_model_folder_of_any_name(tmp_path: Path, folder: str) -> None:
    source = repository(tmp_path)
    (source / "adds" / CONFIG).write_text(TRITON_CONFIG.replace('name: "adds"', ""))
    (source / "adds").rename(source / folder)
    with servers.deploy("triton", source) as endpoint:
        for protocol in ("rest", "grpc"):
            assert ask(endpoint, endpoint.payload(protocol))
        assert statistics(endpoint)["requests"] > 0


# ----------------------------------------------------------------------- what a repository may look like

COMPLETED = (
    TRITON_MODEL
    + """
    @staticmethod
    def auto_complete_config(config):
        config.add_input({"name": "n", "data_type": "TYPE_INT64", "dims": [2]})
        config.add_input({"name": "text", "data_type": "TYPE_STRING", "dims": [1]})
        config.add_output({"name": "total", "data_type": "TYPE_INT64", "dims": [1]})
        config.set_max_batch_size(8)
        return config
"""
)
"""The model ``adds``, which describes itself."""
ENSEMBLE = """
platform: "ensemble"
max_batch_size: 8
input [
  { name: "numbers" data_type: TYPE_INT64 dims: [ 2 ] },
  { name: "words" data_type: TYPE_STRING dims: [ 1 ] }
]
output [ { name: "all" data_type: TYPE_INT64 dims: [ 1 ] } ]
ensemble_scheduling {
  step [ {
    model_name: "adds" model_version: -1
    input_map { key: "n" value: "numbers" }
    input_map { key: "text" value: "words" }
    output_map { key: "total" value: "all" }
  } ]
}
"""


def several(folder: Path) -> Path:
    """A repository with ``adds``, with an ensemble that consists of it, and with a model that does not load."""
    repository(folder)
    (folder / "broken" / "1").mkdir(parents=True)
    (folder / "broken" / "1" / "model.py").write_text("raise ImportError")
    (folder / "whole" / "1").mkdir(parents=True)
    (folder / "whole" / CONFIG).write_text(ENSEMBLE)
    (folder / "notes").mkdir()
    return folder


def test_one_of_several_models_is_chosen_by_its_folder_and_an_ensemble_brings_its_models(tmp_path: Path) -> None:
    source = several(tmp_path / "source")
    assert [folder.name for folder in models(source)] == ["adds", "broken", "whole"]
    message = rf"its models are adds, broken, whole; accepted: .* such as {source}/adds"
    with pytest.raises(ConfigError, match=message):
        only_model(source)
    for name, copied in (("adds", ["adds"]), ("whole", ["adds", "whole"])):
        assert only_model(source / name) == name
        copy(source / name, name, tmp_path / f"copy-{name}", Settings())
        assert sorted(path.name for path in (tmp_path / f"copy-{name}").iterdir()) == copied


def test_settings_of_a_model_without_a_configuration_are_all_that_it_says(tmp_path: Path) -> None:
    source = repository(tmp_path / "source")
    (source / "adds" / CONFIG).unlink()
    assert only_model(source) == "adds"
    copy(source, "adds", tmp_path / "copy", Settings(instances=2))
    config = read_config(tmp_path / "copy" / "adds" / CONFIG)
    assert [field.name for field, _ in config.ListFields()] == ["instance_group"]


@pytest.mark.server
@pytest.mark.parametrize("instances", [None, 2])
def test_triton_completes_the_configuration_of_a_model_that_has_none(tmp_path: Path, instances: int | None) -> None:
    source = repository(tmp_path, model=COMPLETED)
    (source / "adds" / CONFIG).unlink()
    with servers.deploy("triton", source, instances=instances) as endpoint:
        config = json.loads(fetch(endpoint.rest, "GET", "/v2/models/adds/config", timeout_s=10))
        assert (config["max_batch_size"], len(config["input"])) == (8, 2)
        assert sum(group["count"] for group in config["instance_group"]) == (instances or 1)


@pytest.mark.server
@pytest.mark.parametrize("name", ["adds", "whole"])
def test_triton_serves_the_model_that_is_chosen_of_several(tmp_path: Path, name: str) -> None:
    with servers.deploy("triton", several(tmp_path) / name) as endpoint:
        assert endpoint.model == name
        for protocol in ("rest", "grpc"):
            assert ask(endpoint, endpoint.payload(protocol))
