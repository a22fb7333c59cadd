"""Versions, labels and models come and go as TensorFlow Serving's contract says, and no request fails over it.

Every version of the model here answers with its own number, so that a row of a table can say which one answered.
"""

import gc
import shutil
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import requests
import tensorflow as tf
from google.protobuf import text_format
from hypothesis import given
from hypothesis import strategies as st
from tensorflow_serving.apis import get_model_status_pb2, model_management_pb2
from tensorflow_serving.config import file_system_storage_path_source_pb2, model_server_config_pb2

from helpers.embedded_server import (
    START_SECONDS,
    Server,
    broken_model,
    floats,
    predict_request,
    run_command,
    spec,
    until,
    work_for,
)
from infscale.deployment.processes.ports import free_ports
from infscale.servers.asgi.status import Code, StatusError
from infscale.servers.embedded import versions
from infscale.servers.embedded.runtime import models, servable

NAMES = (1, 2, 3)


def save(folder: Path, answer: float) -> None:
    def run(x: Any) -> Any:
        return {"y": x * 0 + answer}

    def slow(seconds: Any) -> Any:
        return {"y": work_for(seconds)["y"] + answer}

    made = {
        "serving_default": tf.function(run).get_concrete_function(spec("x")),
        "slow": tf.function(slow).get_concrete_function(spec("seconds", ())),
    }
    tf.saved_model.save(tf.Module(), str(folder), signatures=made)


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a base path with versions 1, 2 and 3."""
    base = tmp_path_factory.mktemp("numbered")
    for number in NAMES:
        save(base / str(number), number)
    return base


def entry(name: str, base: Path | str, more: str = "") -> str:
    return f'config {{ name: "{name}" base_path: "{base}" model_platform: "tensorflow" {more} }}'


def config_text(*entries: str) -> str:
    return "model_config_list { " + " ".join(entries) + " }"


def parsed(text: str) -> model_server_config_pb2.ModelServerConfig:
    return text_format.Parse(text, model_server_config_pb2.ModelServerConfig())


def reload(server: Server, text: str) -> Any:
    request = model_management_pb2.ReloadConfigRequest(config=parsed(text))
    return server.model.HandleReloadConfigRequest(request, timeout=60)


def answer(server: Server, path: str) -> Any:
    """Return the version that answers, or the error."""
    document = server.post({"instances": [0.0]}, f"/v1/models/{path}:predict").json()
    return document["predictions"][0] if "predictions" in document else document["error"]


def states(server: Server, name: str) -> dict[str, str]:
    return server.status(name)


@pytest.fixture(scope="module")
def base_server(numbered: Path, tmp_path_factory: pytest.TempPathFactory, server_process: None) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("policies")
    (folder / "models.config").write_text(BASE_CONFIG.replace("BASE", str(numbered)))
    running = Server(None, folder / "log", f"--model_config_file={folder / 'models.config'}")
    try:
        running.wait_ready("latest")
        yield running
    finally:
        running.stop()


@pytest.fixture
def server(base_server: Server, numbered: Path) -> Iterator[Server]:
    """The server, as the file configured it."""
    yield base_server
    reload(base_server, BASE_CONFIG.replace("BASE", str(numbered)))


BASE_CONFIG = config_text(
    entry("latest", "BASE"),
    entry("two", "BASE", "model_version_policy { latest { num_versions: 2 } }"),
    entry("all", "BASE", "model_version_policy { all {} }"),
    entry("specific", "BASE", "model_version_policy { specific { versions: 1 versions: 3 versions: 9 } }"),
)

# --- policies: several models by configuration file -----------------------------------------------------------------

POLICIES = [("latest", "3"), ("two", "32"), ("all", "321"), ("specific", "31")]


@pytest.mark.parametrize(("name", "served"), POLICIES)
def test_a_policy_serves_its_versions_and_the_newest_by_default(server: Server, name: str, served: str) -> None:
    assert states(server, name) == dict.fromkeys(served, "AVAILABLE")
    assert answer(server, name) == float(served[0])
    for number in map(str, NAMES):
        expected = float(number) if number in served else f"Servable not found for request: Specific({name}, {number})"
        assert answer(server, f"{name}/versions/{number}") == expected


# --- labels ---------------------------------------------------------------------------------------------------------

LABELS = 'model_version_policy { all {} } version_labels { key: "stable" value: 1 } '


def labelled(numbered: Path, canary: int) -> str:
    return config_text(entry("all", numbered, LABELS + f'version_labels {{ key: "canary" value: {canary} }}'))


def test_a_label_leads_to_its_version_until_it_is_moved(server: Server, numbered: Path) -> None:
    reload(server, labelled(numbered, 3))
    assert (answer(server, "all/labels/stable"), answer(server, "all/labels/canary")) == (1.0, 3.0)
    request = predict_request(name="all", x=floats(0))
    request.model_spec.version_label = "canary"
    response = server.prediction.Predict(request, timeout=20)
    assert (response.outputs["y"].float_val[0], response.model_spec.version.value) == (3.0, 3)
    reload(server, labelled(numbered, 2))
    assert answer(server, "all/labels/canary") == 2.0
    assert answer(server, "all/labels/other") == "Unrecognized servable version label: other"
    assert answer(server, "latest/labels/canary") == "Unrecognized servable version label: canary"


def test_metadata_and_status_take_labels_too(server: Server, numbered: Path) -> None:
    reload(server, labelled(numbered, 2))
    metadata = requests.get(f"{server.url}/v1/models/all/labels/canary/metadata", timeout=20).json()
    assert metadata["model_spec"]["version"] == "2"
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name, request.model_spec.version_label = "all", "stable"
    (only,) = server.model.GetModelStatus(request, timeout=20).model_version_status
    assert (only.version, only.state) == (1, only.AVAILABLE)


@pytest.mark.server
def test_a_new_label_may_wait_for_its_version_if_the_flag_allows_it(numbered: Path, tmp_path: Path) -> None:
    base = tmp_path / "model"
    shutil.copytree(numbered / "1", base / "1")
    both = LABELS + 'version_labels { key: "canary" value: 3 }'
    file = tmp_path / "models.config"
    file.write_text(config_text(entry("m", base, both)))
    running = Server(
        None, tmp_path / "log", f"--model_config_file={file}", "--allow_version_labels_for_unavailable_models=true"
    )
    try:
        running.wait_ready()
        assert answer(running, "m/labels/canary") == "Servable not found for request: Specific(m, 3)"
        shutil.copytree(numbered / "3", base / "copying")
        (base / "copying").rename(base / "3")
        until(lambda: answer(running, "m/labels/canary") == 3.0, START_SECONDS, running)
        with pytest.raises(grpc.RpcError, match="assign label to version 2"):  # the label exists: no moving it there
            reload(running, config_text(entry("m", base, both.replace("3", "2"))))
    finally:
        running.stop()


# --- HandleReloadConfigRequest --------------------------------------------------------------------------------------


def test_a_reload_adds_and_removes_models(server: Server, numbered: Path) -> None:
    response = reload(server, config_text(entry("added", numbered), entry("all", numbered)))
    assert (response.status.error_code, response.status.error_message) == (0, "")
    assert answer(server, "added") == 3.0
    assert answer(server, "latest") == "Servable not found for request: Latest(latest)"
    assert states(server, "latest") == {"3": "END"}
    assert states(server, "all") == {"3": "AVAILABLE", "2": "END", "1": "END"}  # its policy is now the default
    reload(server, config_text(entry("latest", numbered)))
    assert answer(server, "latest") == 3.0


ONE = 'config { name: "a" base_path: "BASE" '
REFUSED = [
    (
        config_text(entry("a", "BASE"), entry("a", "BASE")),
        "INVALID_ARGUMENT",
        "Illegal to list model a multiple times in config list",
    ),
    (
        config_text(entry("a", "models/a")),
        "INVALID_ARGUMENT",
        "Expected model a to have an absolute path or URI; got base_path()=models/a",
    ),
    (
        config_text(ONE + "}"),
        "INVALID_ARGUMENT",
        "Illegal setting neither ModelServerConfig::model_type (deprecated) nor ModelServerConfig::model_platform.",
    ),
    (
        config_text(ONE + 'model_platform: "tensorflow" model_type: TENSORFLOW }'),
        "INVALID_ARGUMENT",
        "Illegal setting both ModelServerConfig::model_type (deprecated) and ModelServerConfig::model_platform.",
    ),
    (
        config_text(ONE + 'model_platform: "caffe" }'),
        "INVALID_ARGUMENT",
        "Model a requests unsupported platform caffe",
    ),
    (
        config_text(entry("latest", "BASE", 'version_labels { key: "stable" value: 1 }')),
        "FAILED_PRECONDITION",
        "Request to assign label to version 1 of model latest, which is not currently available for inference",
    ),
    (
        "custom_model_config {}",
        "INVALID_ARGUMENT",
        "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently "
        "supported",
    ),
    (
        "",
        "INVALID_ARGUMENT",
        "ServerModelConfig type not supported by HandleReloadConfigRequest. Only ModelConfigList is currently "
        "supported",
    ),
]


@pytest.mark.parametrize(("text", "code", "details"), REFUSED)
def test_an_illegal_reload_changes_nothing(server: Server, numbered: Path, text: str, code: str, details: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        reload(server, text.replace("BASE", str(numbered)))
    assert (caught.value.code().name, caught.value.details()) == (code, details)
    assert [answer(server, name) for name, _ in POLICIES] == [3.0, 3.0, 3.0, 3.0]


def test_a_reload_says_which_new_model_cannot_be_loaded_and_the_others_answer(
    server: Server, numbered: Path, tmp_path: Path
) -> None:
    broken = broken_model(tmp_path / "broken")
    with pytest.raises(grpc.RpcError) as caught:
        reload(server, config_text(entry("bad", broken), entry("good", numbered), entry("none", tmp_path / "absent")))
    details = caught.value.details() or ""
    assert caught.value.code() is grpc.StatusCode.UNKNOWN
    assert details.startswith("2 model(s) did not become available: {{{name: bad version: 1} due to error: ")
    assert answer(server, "good") == 3.0


# --- the configuration file -----------------------------------------------------------------------------------------


@pytest.mark.server
def test_a_polled_configuration_file_is_followed_and_a_broken_one_is_not(numbered: Path, tmp_path: Path) -> None:
    file = tmp_path / "models.config"
    file.write_text(config_text(entry("m", numbered)))
    running = Server(None, tmp_path / "log", f"--model_config_file={file}", "--model_config_file_poll_wait_seconds=1")
    try:
        running.wait_ready()
        file.write_text(config_text(entry("m", numbered), entry("second", numbered)))
        until(lambda: answer(running, "second") == 3.0, START_SECONDS, running)
        file.write_text("model_config_list { nonsense }")
        until(lambda: "Error parsing text-format" in running.log.read_text(), START_SECONDS, running)
        assert answer(running, "second") == 3.0
        file.write_text(config_text(entry("second", numbered)))
        until(lambda: answer(running, "m") == "Servable not found for request: Latest(m)", START_SECONDS, running)
        assert answer(running, "second") == 3.0
    finally:
        running.stop()


STARTS = [
    ("model_config_list { nonsense }", "Error parsing text-format tensorflow.serving.ModelServerConfig: 1:"),
    ("model_config_list { nonsense }", "INVALID_ARGUMENT: Invalid protobuf file: '"),
    (config_text(entry("a", "x")), "INVALID_ARGUMENT: Expected model a to have an absolute path or URI"),
    ("custom_model_config {}", "FAILED_PRECONDITION: Cannot transition to requested config."),
    (
        config_text(entry("m", "BASE", 'version_labels { key: "stable" value: 3 }')),
        "FAILED_PRECONDITION: Request to assign label to version 3 of model m, which is not currently available",
    ),
]


@pytest.mark.server
@pytest.mark.parametrize(("text", "reason"), STARTS)
def test_a_bad_configuration_file_ends_the_start_with_the_reason(
    numbered: Path, tmp_path: Path, text: str, reason: str
) -> None:
    (tmp_path / "models.config").write_text(text.replace("BASE", str(numbered)))
    ended = run_command(f"--model_config_file={tmp_path / 'models.config'}", f"--port={free_ports(1)[0]}")
    assert ended.returncode != 0
    assert reason in ended.stderr


@pytest.mark.server
def test_a_missing_configuration_file_is_named(tmp_path: Path) -> None:
    ended = run_command(f"--model_config_file={tmp_path / 'absent'}")
    assert ended.returncode != 0
    assert f"NOT_FOUND: {tmp_path / 'absent'}" in ended.stderr


# --- no request fails while versions change -------------------------------------------------------------------------


class Askers:
    """Threads that ask without pause, over both protocols; ``answers`` has every answer, ``errors`` every failure."""

    def __init__(self, server: Server) -> None:
        self.answers: list[float] = []
        self.errors: list[Exception] = []
        self._stop = threading.Event()
        asks = [lambda: self._rest(server), lambda: self._grpc(server)] * 2
        self._threads = [threading.Thread(target=self._ask, args=(ask,)) for ask in asks]

    def __enter__(self) -> "Askers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, ask: Callable[[], float]) -> None:
        while not self._stop.is_set():
            try:
                self.answers.append(ask())
            except Exception as error:
                self.errors.append(error)

    def _rest(self, server: Server) -> float:
        document = server.post({"instances": [0.0]}).json()
        return float(document["predictions"][0])

    def _grpc(self, server: Server) -> float:
        response = server.prediction.Predict(predict_request(x=floats(0)), timeout=20)
        return float(response.outputs["y"].float_val[0])


@pytest.mark.server
def test_no_request_fails_while_versions_are_swapped_many_times(numbered: Path, tmp_path: Path) -> None:
    base = tmp_path / "model"
    shutil.copytree(numbered / "1", base / "1")
    running = Server(base, tmp_path / "log")
    try:
        running.wait_ready()
        with Askers(running) as askers:
            for version in range(2, 6):
                shutil.copytree(numbered / str(1 + version % 3), base / "copying")
                (base / "copying").rename(base / str(version))
                until(lambda v=version: states(running, "m").get(str(v)) == "AVAILABLE", START_SECONDS, running)  # type: ignore[misc]
                until(lambda v=version: states(running, "m").get(str(v - 1)) == "END", START_SECONDS, running)  # type: ignore[misc]
            shutil.rmtree(base / "5")  # back to the version before
            until(lambda: states(running, "m") == {"5": "END", "4": "AVAILABLE"} | END_3_TO_1, START_SECONDS, running)
        assert askers.errors == []
        assert set(askers.answers) == {1.0, 2.0, 3.0}
    finally:
        running.stop()


END_3_TO_1 = {"3": "END", "2": "END", "1": "END"}


@pytest.mark.server
def test_a_request_that_runs_on_an_unloaded_version_still_gets_its_answer(numbered: Path, tmp_path: Path) -> None:
    base = tmp_path / "model"
    shutil.copytree(numbered / "1", base / "1")
    running = Server(base, tmp_path / "log")
    try:
        running.wait_ready()
        call = running.prediction.Predict.future(predict_request("slow", seconds=np.array(6.0, np.float32)))
        shutil.copytree(numbered / "2", base / "copying")
        (base / "copying").rename(base / "2")
        until(lambda: states(running, "m") == {"2": "AVAILABLE", "1": "END"}, START_SECONDS, running)
        assert not call.done()
        assert list(call.result(timeout=30).outputs["y"].float_val) == [1.0]
    finally:
        running.stop()


# --- the models alone -----------------------------------------------------------------------------------------------


class Fake:
    """A servable that only knows its version."""

    def __init__(self, version: int) -> None:
        self.version = version


class Loads:
    """Stands in for TensorFlow; versions in ``bad`` fail."""

    def __init__(self, *bad: int) -> None:
        self.bad = set(bad)
        self.loaded: list[int] = []
        self.most_at_once = 0

    def __call__(self, name: str, version: int, path: Path) -> Any:
        self.loaded.append(version)
        if version in self.bad:
            raise ValueError(f"version {version} is broken")
        return Fake(version)


def folders(base: Path, *numbers: int) -> Path:
    for number in numbers:
        (base / str(number)).mkdir(parents=True)
        (base / str(number) / "saved_model.pb").touch()
    return base


def started(base: Path, load: Any) -> models.Models:
    made = models.Models(load)
    made.reload(parsed(config_text(entry("m", base))))
    return made


def test_a_model_whose_versions_all_vanish_is_unloaded_but_not_one_whose_disk_is_away(tmp_path: Path) -> None:
    made = started(folders(tmp_path / "m", 1), Loads())
    (tmp_path / "m").rename(tmp_path / "away")
    made.poll()
    assert made.find("m").version == 1
    (tmp_path / "m").mkdir()
    made.poll()
    with pytest.raises(StatusError, match="Latest"):
        made.find("m")


def test_a_new_version_that_does_not_load_leaves_the_old_one_and_is_tried_a_few_times(tmp_path: Path) -> None:
    load = Loads(2)
    made = started(folders(tmp_path, 1), load)
    folders(tmp_path, 2)
    for _ in range(20):
        made.poll()
    assert made.find("m").version == 1
    assert load.loaded == [1] + [2] * models.LOAD_ATTEMPTS
    assert made.status("m")[2] == models.VersionStatus("END", Code.UNKNOWN, "version 2 is broken")
    shutil.rmtree(tmp_path / "2")
    made.poll()
    load.bad.clear()
    folders(tmp_path, 2)  # copied again: a new chance
    made.poll()
    assert made.find("m").version == 2


def test_the_new_version_is_there_before_the_old_one_goes(tmp_path: Path) -> None:
    seen: list[list[int]] = []

    class Watching(Loads):
        def __call__(self, name: str, version: int, path: Path) -> Any:
            seen.append(sorted(made._models[name].serving) if version > 1 else [])
            return super().__call__(name, version, path)

    made = started(folders(tmp_path, 1), Watching())
    folders(tmp_path, 2)
    made.poll()
    assert seen == [[], [1]]


@given(
    present=st.sets(st.integers(0, 2**63 - 1), max_size=8),
    count=st.integers(0, 10),
    named=st.lists(st.integers(0, 2**63 - 1), max_size=4),
)
def test_policies_choose_among_what_is_there(present: set[int], count: int, named: list[int]) -> None:
    policy = file_system_storage_path_source_pb2.FileSystemStoragePathSourceConfig.ServableVersionPolicy
    latest, specific, everything = policy(), policy(), policy()
    latest.latest.num_versions = count
    specific.specific.versions.extend(named)
    everything.all.SetInParent()
    assert versions.chosen(latest, present) == set(sorted(present)[-max(count, 1) :])
    assert versions.chosen(specific, present) == present.intersection(named)
    assert versions.chosen(everything, present) == present
    assert versions.chosen(policy(), present) == set(sorted(present)[-1:])


def test_the_memory_of_an_unloaded_version_is_freed(numbered: Path, tmp_path: Path) -> None:
    """Sessions and graphs refer to each other; a server that swaps versions for weeks must not grow."""
    shutil.copytree(numbered / "1", tmp_path / "1")
    made = started(tmp_path, servable.Servable)
    old = made.find("m")
    assert old.signatures["serving_default"].run({"x": floats(0)})["y"].tolist() == [1.0]
    references = [weakref.ref(old), weakref.ref(old._session), weakref.ref(old._session.graph)]
    shutil.copytree(numbered / "2", tmp_path / "2")
    made.poll()
    assert references[0]() is old  # a request that still holds it can still run it
    assert old.signatures["serving_default"].run({"x": floats(0)})["y"].tolist() == [1.0]
    del old
    gc.disable()
    try:
        made.poll()
        assert [reference() for reference in references] == [None, None, None]
    finally:
        gc.enable()
