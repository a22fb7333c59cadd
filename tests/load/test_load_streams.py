"""If these fail, ``infscale load`` reports times of messages that its own tables do not hold, or shows a key."""

import io
import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pandas as pd
import pytest

from helpers import raw_server
from helpers.streamed import HEAD, chunk
from infscale import cli
from infscale.records import chunks, samples
from infscale.records.manifest import LoadManifest, read

KEY = "sk-a-secret-key"
STATUSES = {"ok", "timeout", "stream_error", "stream_cut", "stream_empty", "stream_few", "stream_many"}


def shown(*options: object) -> tuple[int, str, str]:
    """Exit code, output and messages of ``infscale load``."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as errors:
        code = cli.main(["load", *map(str, options)])
    return code, out.getvalue(), errors.getvalue()


def measured(folder: Path, url: str, *options: object) -> tuple[dict[str, Any], pd.DataFrame, pd.DataFrame]:
    """The JSON, the rows and the messages of a load, whatever this machine's state made of the verdict."""
    out = folder / "rows.parquet"
    code, text, errors = shown(url, "--json", "--out", out, *options)
    assert code in (0, 3, 4), errors
    rows, messages = samples.read(out), chunks.read(folder / "rows-chunks.parquet")
    in_order(rows, messages)
    return json.loads(text), rows, messages


def in_order(rows: pd.DataFrame, messages: pd.DataFrame) -> None:
    """Whether rows and messages belong together, and their times are in order."""
    assert set(rows["status"]) <= STATUSES
    first = messages[messages["index"] == 0].set_index("sequence")["at_ns"]
    with_one = rows[rows["first_byte_ns"] >= 0].set_index("sequence")
    assert first.to_dict() == with_one["first_byte_ns"].to_dict()
    assert (with_one["sent_ns"] <= with_one["first_byte_ns"]).all()
    last = messages.groupby("sequence")["at_ns"].max()
    assert (last <= with_one["done_ns"].loc[last.index]).all()
    of_each = messages.groupby("sequence")
    assert of_each["at_ns"].apply(lambda at: at.is_monotonic_increasing).all()
    assert of_each["index"].apply(lambda index: (index == range(len(index))).all()).all()


# ---------------------------------------------------------------------------------------------- chat completions


class Chat:
    """A stand-in for a chat-completion service, no real one: events in its form, which carry no model's answer."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens
        self.heads: list[str] = []

    def __call__(self, connection: socket.socket) -> None:
        """Serve one connection."""
        with connection.makefile("rb") as file:
            while head := b"".join(iter(file.readline, b"\r\n")).decode():
                self.heads.append(head)
                length = next(int(line[15:]) for line in head.lower().splitlines() if line.startswith("content-length"))
                wanted = json.loads(file.read(length))
                assert wanted["stream"] is True
                connection.sendall(HEAD + b"".join(self.events(wanted["model"])) + b"0\r\n\r\n")

    def events(self, model: str) -> Iterator[bytes]:
        """The chunks of one answer."""
        common = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model}
        for _ in range(self.tokens):
            delta = {**common, "choices": [{"index": 0, "delta": {"content": " word"}, "finish_reason": None}]}
            yield self.event(delta | {"usage": None})
        if model == "failing":
            yield self.event({"error": {"message": "the GPU is gone", "type": "server_error"}})
        usage = {"prompt_tokens": 5, "completion_tokens": self.tokens, "total_tokens": self.tokens + 5}
        yield self.event({**common, "choices": [], "usage": usage})
        if model != "cut":
            yield chunk(b"data: [DONE]\n\n")

    @staticmethod
    def event(value: object) -> bytes:
        """An event in a chunk of its own."""
        return chunk(b"data: " + json.dumps(value).encode() + b"\n\n")


@pytest.fixture
def chat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Chat, Callable[[str], list[object]]]]:
    """The stand-in, and the options that load it with a model."""
    service = Chat(12)
    monkeypatch.setenv("CHAT_KEY", KEY)
    with raw_server.server(service) as url:

        def options(model: str) -> list[object]:
            body = tmp_path / "body.json"
            body.write_text(json.dumps({"model": model, "stream": True, "messages": []}))
            key = ["--header-from", "Authorization: Bearer env:CHAT_KEY"]
            return [
                f"{url}v1/chat/completions",
                "--sse",
                "--rate",
                20,
                "--duration",
                1,
                "--timeout",
                60,
                "--body",
                body,
                *key,
            ]

        yield service, options


def test_a_chat_completion_is_timed_by_its_tokens(tmp_path: Path, chat: tuple[Chat, Any]) -> None:
    service, options = chat
    summary, rows, messages = measured(tmp_path, *options("any"), "--messages", 13)
    assert (rows["status"] == "ok").all()
    assert summary["messages"] == len(messages) == 13 * len(rows)
    assert summary["messages_per_stream_min"] == summary["messages_per_stream_max"] == 13
    assert summary["tokens"] == 12 * len(rows)
    in_time = (rows["done_ns"] < summary["duration_s"] * 1e9).sum()
    assert summary["tokens_per_s"] == pytest.approx(12 * in_time / summary["duration_s"])
    in_time = (messages["at_ns"] < summary["duration_s"] * 1e9).sum()
    assert summary["messages_per_s"] == pytest.approx(in_time / summary["duration_s"])
    first_ms = (rows["first_byte_ns"] - rows["scheduled_ns"]) / 1e6
    assert summary["first_message_p50_ms"] == pytest.approx(np.quantile(first_ms, 0.5, method="inverted_cdf"))
    from_send_ms = (rows["first_byte_ns"] - rows["sent_ns"]) / 1e6
    assert summary["first_message_from_send_p90_ms"] == pytest.approx(
        np.quantile(from_send_ms, 0.9, method="inverted_cdf")
    )
    gaps_ms = messages.groupby("sequence")["at_ns"].diff().dropna() / 1e6
    assert summary["gap_p95_ms"] == pytest.approx(np.quantile(gaps_ms, 0.95, method="inverted_cdf"))
    assert summary["longest_stall_ms"] == pytest.approx(gaps_ms.max())
    assert summary["messages_together_share"] == pytest.approx((gaps_ms == 0).mean())
    reads = len(messages.drop_duplicates(["sequence", "at_ns"]))
    assert summary["messages_per_read"] == pytest.approx(len(messages) / reads)
    assert "accept: text/event-stream" in service.heads[0].lower()


def test_text_names_first_message_gaps_and_tokens(chat: tuple[Chat, Any]) -> None:
    _, options = chat
    code, text, _ = shown(*options("any"))
    assert code in (0, 3)
    for words in ("first message", "  from the send", "gap", "13 a stream", "longest stall", "a read", "tokens"):
        assert words in text


def test_a_key_reaches_the_server_and_nobody_else(tmp_path: Path, chat: tuple[Chat, Any]) -> None:
    service, options = chat
    (tmp_path / "key").write_text(f"{KEY}-2\n")
    out = tmp_path / "rows.parquet"
    _, text, errors = shown(*options("any"), "--out", out, "--header-from", f"X-Key: file:{tmp_path / 'key'}")
    assert {f"authorization: Bearer {KEY}", f"x-key: {KEY}-2"} <= set(service.heads[0].splitlines())
    stored = [file for file in tmp_path.iterdir() if file.name not in ("key", "body.json")]
    assert {file.suffix for file in stored} == {".parquet", ".json"}
    assert not any(KEY.encode() in file.read_bytes() for file in stored)
    assert KEY not in text + errors
    manifest = read(out.with_suffix(".json"), LoadManifest)
    assert {"authorization", "x-key"} <= set(manifest.header_names)
    assert (manifest.streaming, manifest.done) == ("sse", "[DONE]")


@pytest.mark.parametrize(("model", "status"), [("failing", "stream_error"), ("cut", "stream_cut")])
def test_a_chat_completion_that_failed_within_is_no_success(
    tmp_path: Path, chat: tuple[Chat, Any], model: str, status: str
) -> None:
    _, options = chat
    summary, rows, messages = measured(tmp_path, *options(model))
    assert set(rows["status"]) == {status}
    assert summary["succeeded"] == 0
    assert len(messages) >= 13 * len(rows)
    reason = {"stream_error": "the GPU is gone", "stream_cut": "ended without [DONE]"}[status]
    assert reason in summary["reasons"][0]["text"]


# ----------------------------------------------------------------------------------------------------------- gRPC


@contextmanager
def grpc_server() -> Iterator[str]:
    """A grpcio server that answers a request of n bytes with n messages; yields its address."""

    class Counting(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # not generic at run time
        def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
            def served(request: bytes, _: object) -> Iterator[bytes]:
                yield from (b"message %d" % k for k in range(len(request)))

            def both(requests: Iterator[bytes], _: object) -> Iterator[bytes]:
                for request in requests:
                    yield from served(request, _)

            if details.method.endswith("Unary"):
                return grpc.unary_unary_rpc_method_handler(lambda request, _: request)
            if details.method.endswith("Server"):
                return grpc.unary_stream_rpc_method_handler(served)
            return grpc.stream_stream_rpc_method_handler(both)

    server = grpc.server(ThreadPoolExecutor(4), handlers=[Counting()])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait(60)


@pytest.mark.parametrize("method", ["Server", "Bidirectional"])
def test_streams_of_grpcio(tmp_path: Path, method: str) -> None:
    (tmp_path / "body").write_bytes(b"sevenby")
    with grpc_server() as address:
        url = f"grpc://{address}/any.Service/{method}"
        load = ("--rate", 30, "--duration", 1, "--body", tmp_path / "body", "--shards", 2, "--timeout", 60)
        summary, rows, messages = measured(tmp_path, url, "--stream", "--messages", 7, *load)
    assert (rows["status"] == "ok").all(), summary["reasons"]
    assert len(messages) == 7 * len(rows)
    assert (messages["bytes"] == 9).all()
    assert rows["shard"].nunique() == 2


def test_a_unary_method_as_a_stream_is_pointed_out_and_the_reverse_is_an_error(tmp_path: Path) -> None:
    """On the wire a unary reply is a stream of one message: only the number tells them apart."""
    (tmp_path / "body").write_bytes(b"two")
    load = ("--rate", 20, "--duration", 1, "--body", tmp_path / "body", "--timeout", 60)
    with grpc_server() as address:
        _, text, _ = shown(f"grpc://{address}/any.Service/Unary", "--stream", *load)
        assert "every stream brought one message" in text
        summary, _, _ = measured(tmp_path, f"grpc://{address}/any.Service/Unary", "--stream", "--messages", 2, *load)
        assert set(summary["errors"]) == {"stream_few"}
        code, _, errors = shown(f"grpc://{address}/any.Service/Server", *load)
    assert code == 4
    assert "a stream of several messages, where one was asked for" in errors


# ------------------------------------------------------------------------------------------------- endless and cut


def test_an_endless_stream_ends_at_its_timeout_and_keeps_its_messages(tmp_path: Path) -> None:
    over = threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(HEAD)
        while not over.wait(0.01):
            connection.sendall(chunk(b"data: on and on\n\n"))

    with raw_server.server(talk) as url:
        load = ("--sse", "--rate", 20, "--duration", 0.5, "--timeout", 2)
        summary, rows, messages = measured(tmp_path, url, *load)
        over.set()
    assert set(rows["status"]) == {"timeout"}
    assert (rows["first_byte_ns"] >= rows["sent_ns"]).any()
    assert (rows.loc[rows["first_byte_ns"] >= 0, "bytes_in"] > 0).all()
    assert summary["messages"] == len(messages) > 0


def test_a_stream_whose_connection_is_lost_is_cut(tmp_path: Path) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(HEAD + chunk(b'{"token": 1}\n'))

    with raw_server.server(talk) as url:
        _, rows, messages = measured(tmp_path, url, "--lines", "--rate", 20, "--duration", 0.5, "--timeout", 60)
    assert set(rows["status"]) == {"stream_cut"}
    assert len(messages) == len(rows)


# ------------------------------------------------------------------------------------------------------- bad input

WRONG: list[tuple[str, list[str], str]] = [
    ("two ways", ["--sse", "--lines"], "exclude each other"),
    ("a number without a way", ["--messages", "3"], "need --stream, --sse or --lines"),
    ("a mark without a way", ["--done", "x"], "need --stream, --sse or --lines"),
    ("a mark of chunks", ["--stream", "--done", "x"], "--sse or --lines"),
    ("a compressed stream", ["--sse", "--gzip"], "compressed"),
    ("a number that is none", ["--sse", "--messages", "-1"], "whole number"),
    ("a source of no kind", ["--header-from", "Authorization: secret"], "env:NAME or file:PATH"),
    ("a source without header", ["--header-from", "env:HOME"], "header"),
    ("a variable that is not set", ["--header-from", "K: env:NO_SUCH_VARIABLE_HERE"], "not set"),
    ("a file that is not there", ["--header-from", "K: file:/no/such/file"], "cannot be read"),
    ("a header given twice", ["--header", "K: v", "--header-from", "K: env:HOME"], "given twice"),
]


@pytest.mark.parametrize(("options", "reason"), [row[1:] for row in WRONG], ids=[row[0] for row in WRONG])
def test_bad_options_are_named(options: list[str], reason: str) -> None:
    code, _, errors = shown("http://127.0.0.1:9/", "--rate", 10, *options)
    assert code == 1
    assert reason in errors


def test_ways_of_rest_are_refused_for_grpc() -> None:
    code, _, errors = shown("grpc://127.0.0.1:9/p.S/M", "--rate", 10, "--sse")
    assert code == 1
    assert "--stream" in errors


def test_a_value_that_is_no_header_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\nand more")
    code, text, errors = shown("http://127.0.0.1:9/", "--rate", 10, "--header-from", f"K: file:{tmp_path / 'key'}")
    assert code == 1
    assert "is not a header" in errors
    assert KEY not in text + errors
