"""gRPC to shims: calls that end in every way, and peers that mean no good."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from core.errors import (
    AgentError,
    Busy,
    Conflict,
    Denied,
    Failed,
    Invalid,
    NotFound,
    OverLimit,
    TimedOut,
    Unavailable,
    Unsupported,
)
from core.runtime.grpc_client import MOST_DATA, GrpcClient
from core.runtime.shimv2.bootstrap import Address
from core.runtime.shimv2.service import connected
from core.runtime.ttrpc.client import ConnectionLost
from tests.conformance.shim_contract import eventually
from tests.fakes import played_shim

HOLD = threading.Event()


def answer(service: str, method: str, payload: bytes) -> bytes:
    """Says it back, refuses, or never answers."""
    errors: dict[str, type[AgentError]] = {
        "Missing": NotFound,
        "There": Conflict,
        "Wrong": Invalid,
        "Closed": Denied,
        "Busy": Busy,
        "Other": Failed,
        "None": Unsupported,
    }
    if method in errors:
        raise errors[method](f"it is {method}")
    if method == "Never":
        HOLD.wait()
    if method == "Large":
        return bytes(MOST_DATA + 1)
    return payload


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("shim") / "s"
    server = played_shim.serve_grpc(path, answer)
    yield path
    HOLD.set()
    server.stop(None).wait()


@pytest.fixture
def client(path: Path) -> Iterator[GrpcClient]:
    with GrpcClient.connect(path) as client:
        yield client


def test_bytes_go_there_and_come_back(client: GrpcClient) -> None:
    for payload in (b"", b"x", bytes(1_000_000)):
        assert client.call("a.B", "Say", payload, 10) == payload


@pytest.mark.parametrize(
    ("method", "error"),
    [
        ("Missing", NotFound),
        ("There", Conflict),
        ("Wrong", Invalid),
        ("Closed", Denied),
        ("Busy", Busy),
        ("Other", Failed),
        ("None", Unsupported),
    ],
)
def test_a_status_is_the_error_that_it_means(client: GrpcClient, method: str, error: type[AgentError]) -> None:
    with pytest.raises(error, match=f"it is {method}") as caught:
        client.call("a.B", method, b"", 10)
    assert type(caught.value) is error
    assert client.call("a.B", "Say", b"on", 10) == b"on"


def test_a_call_that_is_not_answered_ends_in_time_and_others_are_not_held_up(client: GrpcClient) -> None:
    waiting = client.begin("a.B", "Never", b"", 0)
    began = time.monotonic()
    with pytest.raises(TimedOut):
        client.call("a.B", "Never", b"", 0.2)
    assert time.monotonic() - began < 5
    assert client.call("a.B", "Say", b"x", 10) == b"x"
    assert not waiting.done.is_set()
    waiting.cancel()
    with pytest.raises(Unavailable, match="cancelled"):
        waiting.result(10)


def test_a_message_that_is_too_large_is_neither_sent_nor_taken(client: GrpcClient) -> None:
    with pytest.raises(OverLimit):
        client.call("a.B", "Say", bytes(MOST_DATA + 1), 10)
    with pytest.raises(OverLimit):
        client.call("a.B", "Large", b"", 10)


def test_closing_ends_what_is_under_way(path: Path) -> None:
    client = GrpcClient.connect(path)
    call = client.begin("a.B", "Never", b"", 0)
    client.close()
    client.close()
    with pytest.raises(ConnectionLost):
        call.result(10)


def test_nobody_there_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        GrpcClient.connect(tmp_path / "none")
    with socket.socket(socket.AF_UNIX) as closed:
        closed.bind(str(tmp_path / "closed"))
    with pytest.raises(Unavailable):
        GrpcClient.connect(tmp_path / "closed")


def test_a_path_that_is_too_long_for_a_socket_is_reached_all_the_same(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    fd = os.open(folder, os.O_PATH)
    server = played_shim.serve_grpc(Path(f"/proc/self/fd/{fd}/s"), answer)
    with GrpcClient.connect(folder / "s") as client:
        assert client.call("a.B", "Say", b"x", 10) == b"x"
    server.stop(None).wait()
    os.close(fd)


@pytest.fixture
def peer(tmp_path: Path) -> Iterator[Callable[[Callable[[socket.socket], object]], Path]]:
    """Somebody who does this with whoever connects."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "peer"))
        listener.listen(16)
        kept = []

        def serve(doing: Callable[[socket.socket], object]) -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                    kept.append(connection)
                    doing(connection)
                except OSError:
                    return

        def begin(doing: Callable[[socket.socket], object]) -> Path:
            threading.Thread(target=serve, args=(doing,), daemon=True).start()
            return tmp_path / "peer"

        yield begin
        listener.shutdown(socket.SHUT_RDWR)
        for connection in kept:
            connection.close()


def test_bytes_of_another_protocol_end_the_call(peer: Callable[..., Path]) -> None:
    path = peer(lambda connection: connection.sendall(b"\xff" * 64))
    with GrpcClient.connect(path) as client, pytest.raises(ConnectionLost):
        client.call("a.B", "Say", b"", 30)


def test_one_that_takes_and_never_answers_ends_the_call_in_time(peer: Callable[..., Path]) -> None:
    path = peer(lambda connection: None)
    began = time.monotonic()
    with GrpcClient.connect(path) as client, pytest.raises(TimedOut):
        client.call("a.B", "Say", b"", 0.3)
    assert time.monotonic() - began < 5


def test_one_that_is_killed_loses_the_connection_at_once(tmp_path: Path) -> None:
    script = (
        "import sys, threading; from pathlib import Path; from tests.fakes.played_shim import serve_grpc\n"
        "server = serve_grpc(Path(sys.argv[1]), lambda *_: threading.Event().wait())\n"
        "print('up', flush=True); server.wait_for_termination()"
    )
    words = [sys.executable, "-c", script, str(tmp_path / "s")]
    environment = {**os.environ, "PYTHONPATH": str(played_shim.REPOSITORY)}
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=environment) as shim:
        assert shim.stdout is not None
        shim.stdout.readline()
        with GrpcClient.connect(tmp_path / "s") as client:
            call = client.begin("a.B", "Wait", b"", 0)
            shim.kill()
            with pytest.raises(ConnectionLost):
                call.result(30)


def test_no_descriptor_and_no_thread_is_left(path: Path) -> None:
    with GrpcClient.connect(path) as client:
        client.call("a.B", "Say", b"", 10)
    files, threads = len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
    for _ in range(5):
        with GrpcClient.connect(path) as client:
            client.call("a.B", "Say", b"", 10)
    eventually(lambda: len(os.listdir("/proc/self/fd")) <= files)
    eventually(lambda: len(os.listdir("/proc/self/task")) <= threads + 1)


def test_who_speaks_ttrpc_does_not_load_the_library(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from core.runtime.shimv2 import driver, minder\n"
        "assert 'grpc' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONPATH": str(played_shim.REPOSITORY)}
    )


def test_the_protocol_that_was_asked_for_is_spoken(path: Path) -> None:
    with connected(Address(path, 3, "grpc")) as client:
        assert client.call("a.B", "Say", b"x", 10) == b"x"
    with connected(Address(path, 3)) as client, pytest.raises(AgentError):
        client.call("a.B", "Say", b"x", 10)
