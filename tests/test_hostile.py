"""If these fail, bytes from a network or a file end a whole trial, or the reading of a run, with a traceback.

``make fuzz`` gives each parser a million cases, this a few hundred.
"""

from collections.abc import Callable

import pytest
from benchmarks.hostile import TARGETS, feed
from hypothesis import given, settings
from hypothesis import strategies as st

from infscale.load.engine.wire.http2_frames import HEAD

PIECES = st.sampled_from(
    [
        b"HTTP/1.1 200 OK\r\n",
        b"content-length: 3\r\n",
        b"transfer-encoding: chunked\r\n",
        b"\r\n",
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
        b"data: [DONE]\n\n",
        b'data: {"error": "x"}\r\n\r\n',
        b"\0\0\0\0\3\x0a\1x",
        b"POST / HTTP/1.1\r\n",
        b'{"instances": [',
        b'{"b64": "AA=="}',
        b"1e999, -0, [[[",
        b"]}",
        b"# TYPE a counter\na 1\n",
        b"arrival_s\n0.1\n",
        b"http://[::1]:80/",
        b"PAR1",
        b'{"version": 3, "design": ',
        b'{"type":"Point","metric":"http_req_duration","data":{"time":"2026-01-01T00:00:00Z","value":1}}\n',
        b'{"metadata":{"version":2},"benchmarks":[',
        b"\x1f\x8b\x08\0",
    ]
)
FRAMES = st.builds(
    lambda kind, flags, stream, body: HEAD.pack(len(body) << 8 | kind, flags, stream) + body,
    st.integers(0, 11),
    st.integers(0, 255),
    st.integers(0, 5),
    st.binary(max_size=40),
)
BYTES = st.lists(PIECES | FRAMES | st.binary(max_size=60), max_size=12).map(b"".join)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.__name__)
@settings(max_examples=300, deadline=None)
@given(data=BYTES)
def test_any_bytes_end_in_a_result_or_in_an_expected_error(target: Callable[[bytes], None], data: bytes) -> None:
    feed(target, data)
