"""ttrpc: frames, calls that end in every way, and peers that mean no good."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

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
from core.runtime.ttrpc import frames
from core.runtime.ttrpc.client import Client, ConnectionLost
from core.runtime.ttrpc.frames import HEADER, MOST_DATA, Frame, Frames, Type
from core.runtime.ttrpc.server import MOST_AT_ONCE, Server
from core.runtime.wire import Malformed, decode, encode

some_frames = st.lists(
    st.builds(Frame, st.integers(0, 2**32 - 1), st.integers(0, 255), st.binary(max_size=50), st.integers(0, 255))
)


@given(some_frames, st.integers(1, 17))
def test_frames_are_cut_anew_however_their_bytes_come(sent: list[Frame], size: int) -> None:
    data = b"".join(frame.pack() for frame in sent)
    incoming = Frames()
    got = [frame for at in range(0, len(data), size) for frame in incoming.feed(data[at : at + size])]
    assert got == sent
    assert incoming.held == 0


@given(st.binary(max_size=200))
def test_any_bytes_are_frames_or_refused(data: bytes) -> None:
    incoming = Frames()
    try:
        list(incoming.feed(data))
    except Malformed:
        return
    assert incoming.held <= len(data)


@pytest.mark.parametrize("length", [MOST_DATA + 1, 0xFFFFFFFF])
def test_a_frame_that_says_it_is_too_large_is_refused_without_allocating(length: int) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(Malformed, match=str(length)):
            list(Frames().feed(HEADER.pack(length, 1, 2, 0)))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_message_that_is_too_large_is_not_sent() -> None:
    with pytest.raises(OverLimit):
        Frame(1, Type.REQUEST, bytes(MOST_DATA + 1)).pack()


@pytest.mark.parametrize(
    ("error", "seen"),
    [
        (Invalid("x"), Invalid),
        (NotFound("x"), NotFound),
        (Conflict("x"), Conflict),
        (Denied("x"), Denied),
        (Busy("x"), Busy),
        (Unsupported("x"), Unsupported),
        (Unavailable("x"), Unavailable),
        (TimedOut("x"), TimedOut),
        (OverLimit("x"), OverLimit),
        (Failed("x"), Failed),
        (Malformed("x"), Invalid),
    ],
)
def test_an_error_arrives_as_its_own_class(error: AgentError, seen: type[AgentError]) -> None:
    with pytest.raises(seen, match="x") as caught:
        frames.read_answer(frames.refusal(error), "asked")
    assert type(caught.value) is seen


def test_a_code_that_nobody_knows_is_a_failure_that_names_the_call() -> None:
    data = encode(frames.RESPONSE, {"status": {"code": 4711}})
    with pytest.raises(Failed, match="S/M was refused with code 4711"):
        frames.read_answer(data, "S/M")


# Over a real socket.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own").mkdir(mode=0o700)
    return tmp_path / "own"


class Peer:
    """The other end of a client, played by the test."""

    def __init__(self) -> None:
        ours, self.end = socket.socketpair(socket.AF_UNIX)
        self.end.settimeout(10)
        self.client = Client(ours, send_seconds=0.3)
        self._incoming = Frames()
        self._waiting: list[Frame] = []

    def next(self) -> tuple[int, dict[str, object]]:
        """The next request and its stream."""
        while not self._waiting:
            self._waiting += self._incoming.feed(self.end.recv(65536))
        frame = self._waiting.pop(0)
        return frame.stream, decode(frames.REQUEST, frame.data)

    def answer(self, stream: int, payload: bytes) -> None:
        """Say yes."""
        self.end.sendall(Frame(stream, Type.RESPONSE, frames.answer(payload)).pack())


@pytest.fixture
def peer() -> Iterator[Peer]:
    peer = Peer()
    yield peer
    peer.client.close()
    peer.end.close()


def test_a_request_says_service_method_payload_and_time(peer: Peer) -> None:
    call = peer.client.begin("pkg.Service", "Method", b"data", 1.5)
    stream, asked = peer.next()
    assert stream == 1
    assert asked["service"] == "pkg.Service"
    assert asked["method"] == "Method"
    assert asked["payload"] == b"data"
    assert asked["timeout_nano"] == 1_500_000_000
    peer.answer(stream, b"yes")
    assert call.result(5) == b"yes"


def test_calls_at_once_get_each_its_own_answer_in_any_order(peer: Peer) -> None:
    calls = [peer.client.begin("S", "M", b"%d" % number, 5) for number in range(20)]
    asked = [peer.next() for _ in calls]
    assert [stream for stream, _ in asked] == list(range(1, 40, 2))
    for stream, request in reversed(asked):
        payload = request["payload"]
        assert isinstance(payload, bytes)
        peer.answer(stream, b"to " + payload)
    assert [call.result(5) for call in calls] == [b"to %d" % number for number in range(20)]
    assert peer.client.waiting == 0


def test_threads_may_call_at_once(folder: Path) -> None:
    server = Server(folder / "s", {"S/Echo": lambda data: data})
    wrong: list[bytes] = []

    def work(client: Client, name: bytes) -> None:
        for number in range(50):
            payload = name * number
            if (got := client.call("S", "Echo", payload, 10)) != payload:
                wrong.append(got)

    with Client.connect(folder / "s") as client:
        threads = [threading.Thread(target=work, args=(client, b"%d" % number)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    server.close()
    assert wrong == []


def test_a_call_that_is_not_answered_ends_with_its_time_and_others_go_on(peer: Peer) -> None:
    with pytest.raises(TimedOut, match="S/Slow"):
        peer.client.call("S", "Slow", b"", 0.05)
    assert peer.client.waiting == 0
    late, _ = peer.next()
    call = peer.client.begin("S", "Quick", b"", 5)
    peer.answer(late, b"too late")
    peer.answer(peer.next()[0], b"in time")
    assert call.result(5) == b"in time"


def test_a_call_can_be_cancelled_from_another_thread(peer: Peer) -> None:
    call = peer.client.begin("S", "M", b"", 60)
    threading.Timer(0.05, call.cancel).start()
    with pytest.raises(Unavailable, match="cancelled"):
        call.result(10)
    assert peer.client.waiting == 0


def test_a_peer_that_hangs_up_ends_every_call(peer: Peer) -> None:
    calls = [peer.client.begin("S", "M", b"", 60) for _ in range(3)]
    peer.end.close()
    for call in calls:
        with pytest.raises(ConnectionLost):
            call.result(10)
    with pytest.raises(ConnectionLost):
        peer.client.call("S", "M", b"", 1)


def test_a_client_that_is_closed_ends_its_calls_and_its_thread(peer: Peer) -> None:
    call = peer.client.begin("S", "M", b"", 60)
    peer.client.close()
    peer.client.close()
    with pytest.raises(ConnectionLost):
        call.result(1)


@pytest.mark.parametrize(
    "nonsense",
    [
        HEADER.pack(0xFFFFFFFF, 1, 2, 0),
        HEADER.pack(MOST_DATA + 1, 1, 2, 0) + bytes(1000),
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
)
def test_a_peer_that_speaks_no_ttrpc_ends_the_connection(peer: Peer, nonsense: bytes) -> None:
    call = peer.client.begin("S", "M", b"", 60)
    peer.end.sendall(nonsense)
    with pytest.raises(Malformed):
        call.result(10)
    peer.next()
    assert peer.end.recv(1) == b""


def test_an_answer_that_is_no_message_ends_its_call_only(peer: Peer) -> None:
    bad, good = (peer.client.begin("S", "M", b"", 60) for _ in range(2))
    peer.end.sendall(Frame(1, Type.RESPONSE, b"\xff\xff\xff").pack())
    with pytest.raises(Malformed):
        bad.result(10)
    peer.answer(3, b"fine")
    assert good.result(10) == b"fine"


def test_frames_that_belong_to_no_call_are_dropped(peer: Peer) -> None:
    call = peer.client.begin("S", "M", b"", 60)
    for stray in (Frame(99, Type.RESPONSE, b""), Frame(1, Type.DATA, b"x"), Frame(1, 77, b"x"), Frame(2, 1, b"")):
        peer.end.sendall(stray.pack())
    peer.answer(1, b"mine")
    assert call.result(10) == b"mine"


def test_a_peer_that_does_not_read_holds_up_a_call_for_a_bounded_time(peer: Peer) -> None:
    started = time.monotonic()
    with pytest.raises(TimedOut, match="does not read"):
        peer.client.call("S", "M", bytes(MOST_DATA - 1000), 60)
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("there", ["nothing", "stale socket", "file"])
def test_a_socket_that_nobody_listens_at_is_told_at_once(folder: Path, there: str) -> None:
    if there == "stale socket":
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(folder / "s"))
    elif there == "file":
        (folder / "s").touch()
    started = time.monotonic()
    with pytest.raises((NotFound, Unavailable)):
        Client.connect(folder / "s")
    assert time.monotonic() - started < 1


# The server and its guests.


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    def refuse(data: bytes) -> bytes:
        raise Busy("not now")

    def parse(data: bytes) -> bytes:
        decode(frames.ANY, data)
        return b""

    server = Server(folder / "s", {"S/Echo": lambda data: data, "S/Refuse": refuse, "S/Parse": parse})
    yield server
    server.close()


def test_unknown_methods_bad_messages_and_refusals_have_their_codes(server: Server, folder: Path) -> None:
    cases: list[tuple[str, bytes, type[AgentError]]] = [
        ("No", b"", Unsupported),
        ("Refuse", b"", Busy),
        ("Parse", b"\xff", Invalid),
    ]
    with Client.connect(folder / "s") as client:
        for method, payload, kind in cases:
            with pytest.raises(kind):
                client.call("S", method, payload, 10)
        assert client.call("S", "Echo", b"still", 10) == b"still"


def _hostile() -> list[Callable[[socket.socket], object]]:
    return [
        lambda guest: guest.sendall(HEADER.pack(0xFFFFFFFF, 1, 1, 0)),
        lambda guest: guest.sendall(b"\0\0\0"),  # half a header, and then nothing
        lambda guest: guest.sendall(HEADER.pack(MOST_DATA, 1, 1, 0) + bytes(10)),  # half a frame
        lambda guest: guest.sendall(os.urandom(5000)),
        lambda guest: guest.sendall(Frame(1, Type.REQUEST, os.urandom(64)).pack() * 100),
        lambda guest: guest.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)),
    ]


def test_hostile_guests_do_not_end_the_server(server: Server, folder: Path) -> None:
    for attack in _hostile():
        guest = socket.socket(socket.AF_UNIX)
        guest.connect(str(folder / "s"))
        guest.settimeout(5)
        with guest:
            attack(guest)
        with Client.connect(folder / "s") as client:
            assert client.call("S", "Echo", b"x", 10) == b"x"


def test_more_guests_than_allowed_are_hung_up_on(server: Server, folder: Path) -> None:
    guests = []
    for _ in range(MOST_AT_ONCE + 1):
        guest = socket.socket(socket.AF_UNIX)
        guest.connect(str(folder / "s"))
        guest.settimeout(10)
        guests.append(guest)
    assert guests[-1].recv(1) == b""
    for guest in guests:
        guest.close()
    deadline = time.monotonic() + 10
    while True:
        with Client.connect(folder / "s") as client:
            try:
                assert client.call("S", "Echo", b"x", 10) == b"x"
                break
            except ConnectionLost:
                assert time.monotonic() < deadline


def test_the_socket_is_for_its_owner_alone(server: Server, folder: Path) -> None:
    assert (folder / "s").stat().st_mode & 0o777 == 0o600


def test_no_socket_is_opened_in_a_folder_that_others_may_enter(folder: Path) -> None:
    folder.chmod(0o755)
    with pytest.raises(Denied):
        Server(folder / "s", {})


@pytest.mark.root
def test_another_user_is_turned_away(server: Server, folder: Path) -> None:
    # Even if the folder's mode were to fail, the peer's credentials say who it is.
    for path in (folder, *list(folder.parents)[:-2]):
        if path.stat().st_mode & 0o011 != 0o011:
            path.chmod(path.stat().st_mode | 0o011)
    (folder / "s").chmod(0o666)
    guest = "import os, socket, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534); s = socket.socket(1); "
    guest += "s.settimeout(10); s.connect(sys.argv[1]); print(s.recv(1))"
    argv = [sys.executable, "-I", "-S", "-c", guest, str(folder / "s")]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    assert ended.stdout.strip() == "b''", ended.stderr


def test_a_server_that_is_closed_leaves_no_socket_and_no_descriptor(folder: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    server = Server(folder / "s", {"S/Echo": lambda data: data})
    with Client.connect(folder / "s") as client:
        assert client.call("S", "Echo", b"x", 10) == b"x"
    server.close()
    assert not (folder / "s").exists()
    deadline = time.monotonic() + 5
    while len(os.listdir("/proc/self/fd")) != before:
        assert time.monotonic() < deadline
