"""Shims: what they say in each dialect, what of it is believed, which service answers, and what a minder writes."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.clock import VirtualClock
from core.errors import AgentError, Busy, Denied, Failed, MissingTool, NotFound, TimedOut, Unsupported
from core.mounts import MountSpec
from core.process import Launcher
from core.runtime import logs, wire
from core.runtime.ports import Stats
from core.runtime.shimv2 import bootstrap, messages, metering, roots
from core.runtime.shimv2.bootstrap import Address, Caller
from core.runtime.shimv2.complaints import explained
from core.runtime.shimv2.minder import CriLog
from core.runtime.shimv2.program import ShimProgram
from core.runtime.shimv2.service import packed, talking
from core.runtime.ttrpc.client import ConnectionLost
from core.runtime.ttrpc.server import Server

SOCKET = "/run/containerd/s/0a"


def proto(**values: Any) -> bytes:
    """A BootstrapResult."""
    return wire.encode(messages.BOOTSTRAP_RESULT, values)


@pytest.mark.parametrize(
    ("said", "version"),
    [
        (f"unix://{SOCKET}".encode(), 2),
        (f"unix://{SOCKET}\n".encode(), 2),
        (json.dumps({"version": 2, "address": f"unix://{SOCKET}", "protocol": "ttrpc"}).encode(), 2),
        (json.dumps({"version": 3, "address": f"unix://{SOCKET}", "protocol": "ttrpc", "more": [1]}).encode(), 3),
        (proto(version=3, address=f"unix://{SOCKET}", protocol="ttrpc"), 3),
        (proto(version=2, address=f"unix://{SOCKET}", metadata={"a": "b"}), 2),
    ],
)
def test_an_address_is_read_in_each_of_three_dialects(said: bytes, version: int) -> None:
    assert bootstrap.parse(said) == Address(Path(SOCKET), version)


def test_a_shim_that_wants_grpc_gets_it() -> None:
    said = json.dumps({"version": 3, "address": f"unix://{SOCKET}", "protocol": "grpc"}).encode()
    assert bootstrap.parse(said) == Address(Path(SOCKET), 3, "grpc")


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (b"", Failed),
        (b"{", Failed),
        (b'{"version": "2", "address": "unix:///x"}', Failed),
        (b'{"version": 2}', Failed),
        (b"{" * 50_000, Failed),
        (b"\xff\xfe\x00garbage", Failed),
        (b"\x08\x02", Failed),
        (b"Usage of containerd-shim:\n  -address string", Failed),
        (b'{"version": 4, "address": "unix:///x", "protocol": "ttrpc"}', Unsupported),
        (b'{"version": 3, "address": "unix:///x", "protocol": "smoke"}', Unsupported),
        (b'{"version": 3, "address": "vsock://3:1024", "protocol": "grpc"}', Unsupported),
        (b"vsock://3:1024", Unsupported),
        (b"unix://relative", Unsupported),
        (b"unix://\0abstract", Unsupported),
        (b"unix:///a\0b", Unsupported),
        (b"@/containerd-shim/x.sock", Failed),
    ],
)
def test_what_cannot_be_an_address_is_told(said: bytes, error: type[AgentError]) -> None:
    with pytest.raises(error):
        bootstrap.parse(said)


@given(st.binary(max_size=200))
def test_any_bytes_are_an_address_or_an_error_of_ours(said: bytes) -> None:
    try:
        bootstrap.parse(said)
    except AgentError:
        return


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "own").mkdir(mode=0o700)
    return tmp_path / "own"


def listen(path: Path) -> None:
    """A socket file."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize(
    ("folder_mode", "socket_mode", "fine"),
    [
        (0o700, 0o755, True),
        (0o711, 0o600, True),
        (0o711, 0o777, False),
        (0o777, 0o600, False),
        (0o1777, 0o600, False),
    ],
)
def test_a_socket_that_others_can_open_or_replace_is_refused(
    folder: Path, folder_mode: int, socket_mode: int, fine: bool
) -> None:
    listen(folder / "s")
    (folder / "s").chmod(socket_mode)
    folder.chmod(folder_mode)
    if fine:
        bootstrap.checked(Address(folder / "s"))
    else:
        with pytest.raises(Denied):
            bootstrap.checked(Address(folder / "s"))


def test_a_link_or_a_file_is_no_socket(folder: Path) -> None:
    listen(folder / "s")
    (folder / "link").symlink_to("s")
    (folder / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(Denied):
            bootstrap.checked(Address(folder / name))
    with pytest.raises(NotFound):
        bootstrap.checked(Address(folder / "missing"))


# Starting what is no shim.


def script(folder: Path, text: str) -> Caller:
    """A program in a shim's place."""
    program = folder / "containerd-shim-bad-v1"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    return Caller(str(program), "tests", "/nowhere")


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("echo 'no such config' >&2; exit 1", Failed, "no such config"),
        ("exit 3", Failed, "ended with 3"),
        ("echo $$; exit 0", Failed, "where its address was due"),
        ("head -c 1000000 /dev/zero", Failed, "where its address was due"),
        ("kill -9 $$", Failed, "ended with -9"),
        ("echo unix:///no/such/socket", NotFound, "socket"),
    ],
)
def test_a_shim_that_dies_or_speaks_nonsense_is_told(
    folder: Path, text: str, error: type[AgentError], words: str
) -> None:
    with pytest.raises(error, match=words):
        bootstrap.start(Launcher(), script(folder, text), "one", folder)
    assert not (folder / "bootstrap.json").exists()


def test_a_shim_that_hangs_at_its_start_is_ended(folder: Path) -> None:
    caller = script(folder, "echo $$ > pid; sleep 1000")
    with pytest.raises(TimedOut, match="where it listens"):
        bootstrap.start(Launcher(), caller, "one", folder, seconds=0.5)
    assert not Path("/proc", (folder / "pid").read_text().strip()).exists()


def test_a_shim_that_is_not_installed_is_told_with_its_package(folder: Path) -> None:
    with pytest.raises(MissingTool):
        bootstrap.start(Launcher(), Caller("containerd-shim-none-v1", "tests", "/nowhere"), "one", folder)


def test_a_shim_is_given_its_flags_its_environment_and_its_bundle(folder: Path) -> None:
    listen(folder / "s")
    text = f'echo "$@" > words; pwd > cwd; env > env; printf unix://{folder}/s'
    address = bootstrap.start(Launcher(), script(folder, text), "one", folder)
    assert address == Address(folder / "s", 2)
    words = (folder / "words").read_text().split()
    assert " ".join(words) == "-namespace tests -address /nowhere -publish-binary /bin/true -id one start"
    assert (folder / "cwd").read_text().strip() == str(folder)
    env = dict(line.split("=", 1) for line in (folder / "env").read_text().splitlines())
    assert env["TTRPC_ADDRESS"] == "events"
    assert env["NAMESPACE"] == "tests"
    assert bootstrap.kept(folder) == address


def test_an_address_is_kept_as_containerd_keeps_it_in_new_and_old_versions(folder: Path) -> None:
    with pytest.raises(NotFound):
        bootstrap.kept(folder)
    (folder / "address").write_text("unix:///old")
    assert bootstrap.kept(folder) == Address(Path("/old"), 2)
    (folder / "bootstrap.json").write_text('{"version": 3, "address": "unix:///new", "protocol": "ttrpc"}')
    assert bootstrap.kept(folder) == Address(Path("/new"), 3)


# The service.


def server(path: Path, service: str, **answers: bytes | AgentError) -> Server:
    """A shim that has one service."""

    def answer(said: bytes | AgentError) -> bytes:
        if isinstance(said, AgentError):
            raise said
        return said

    return Server(path, {f"{service}/{name}": lambda _, said=said: answer(said) for name, said in answers.items()})  # type: ignore[misc]  # a default binds the loop's value


@pytest.mark.parametrize("said", [2, 3])
@pytest.mark.parametrize("has", [2, 3])
def test_a_shim_is_spoken_to_by_the_service_that_it_has(folder: Path, said: int, has: int) -> None:
    pid = wire.encode(messages.METHODS["Start"][1], {"pid": 4711})
    shim = server(folder / "s", messages.TASK[has - 2], Start=pid, Pause=b"")
    with talking(Address(folder / "s", said)) as task:
        assert task.call("Start", id="one") == {"pid": 4711}
        assert task.call("Pause", id="one") == {}
        with pytest.raises(Unsupported):
            task.call("Resume", id="one")
        assert task.call("Start", id="one") == {"pid": 4711}
    shim.close()


def test_an_answer_that_is_a_refusal_or_no_message_is_an_error(folder: Path) -> None:
    shim = server(folder / "s", messages.TASK[0], Delete=Busy("it runs"), Start=b"\xff")
    with talking(Address(folder / "s")) as task:
        with pytest.raises(Busy, match="it runs"):
            task.call("Delete", id="one")
        with pytest.raises(wire.Malformed):
            task.call("Start", id="one")
    shim.close()


def test_oci_structures_travel_as_json_in_an_any() -> None:
    assert packed("Process", {"args": ["x"]}) == {
        "type_url": "types.containerd.io/opencontainers/runtime-spec/1/Process",
        "value": b'{"args": ["x"]}',
    }


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (ConnectionLost("hung up"), ConnectionLost, "bad-v1 went away in the middle of a call: no such config"),
        (wire.Malformed("cut off"), wire.Malformed, "bad-v1 answered with nonsense: cut off"),
        (TimedOut("Start was not answered"), TimedOut, "bad-v1 hangs: Start was not answered"),
        (Failed('exec: "x": executable file not found in $PATH'), NotFound, "executable file not found"),
    ],
)
def test_what_a_shim_does_wrong_is_told_with_its_name_and_what_to_do(
    folder: Path, error: AgentError, kind: type[AgentError], words: str
) -> None:
    (folder / "log").write_text('time="now" level=error msg="no such config"\n')
    told = explained(error, "/opt/containerd-shim-bad-v1", folder)
    assert isinstance(told, kind)
    assert words in told.message
    assert told.hint()


def test_what_has_a_class_of_its_own_stays_as_it_is(folder: Path) -> None:
    error = Busy("it runs")
    assert explained(error, "/opt/containerd-shim-bad-v1", folder) is error
    assert explained(ConnectionLost("hung up"), "x", folder).message.endswith("of a call: hung up")


# What a shim counts, and what it mounts.


def test_counters_of_both_kinds_are_read() -> None:
    v1 = {
        "pids": {"current": 3},
        "cpu": {"usage": {"total": 2_500_000_000}},
        "memory": {"total_inactive_file": 10, "usage": {"usage": 110}},
        "memory_oom_control": {"oom_kill": 1},
    }
    v2 = {
        "pids": {"current": 3},
        "cpu": {"usage_usec": 2_500_000},
        "memory": {"inactive_file": 10, "usage": 110},
        "memory_events": {"oom_kill": 1},
    }
    for url, table, values in (
        (messages.METRICS_V1_URL, messages.METRICS_V1, v1),
        (f"types.googleapis.com/{messages.METRICS_V2_URL}", messages.METRICS_V2, v2),
    ):
        assert metering.read({"type_url": url, "value": wire.encode(table, values)}) == Stats(2.5, 100, 3, 1)
        assert metering.read({"type_url": url, "value": b""}) == Stats(0.0, 0, 0, 0)


def test_counters_that_nobody_knows_are_told() -> None:
    for told in (None, {"type_url": "some.Other", "value": b""}):
        with pytest.raises(Unsupported):
            metering.read(told)
    with pytest.raises(wire.Malformed):
        metering.read({"type_url": messages.METRICS_V1_URL, "value": b"\xff"})


def test_a_root_as_mounts_has_no_path_that_depends_on_where_one_stands() -> None:
    layers = ("lowerdir=1/fs:2/fs", "upperdir=/up", "workdir=/work", "xino=off")
    assert roots.as_message(MountSpec("overlay", "overlay", layers, "/var/layers")) == {
        "type": "overlay",
        "source": "overlay",
        "options": ["lowerdir=/var/layers/1/fs:/var/layers/2/fs", "upperdir=/up", "workdir=/work", "xino=off"],
    }
    bind = MountSpec("bind", "3/fs", ("bind", "ro"), "/var/layers")
    assert roots.as_message(bind) == {"type": "bind", "source": "/var/layers/3/fs", "options": ["bind", "ro"]}


def test_the_options_of_a_runtime_say_how_its_shim_is_used() -> None:
    plain, boxed = ShimProgram("x"), ShimProgram("x", {"sandbox": "service", "rootfs": "mounts"})
    assert (plain.has_sandboxes, plain.wants_mounts) == (False, False)
    assert (boxed.has_sandboxes, boxed.wants_mounts) == (True, True)


# The log.


def test_a_log_is_in_the_format_that_everybody_reads(tmp_path: Path) -> None:
    log = CriLog(tmp_path / "log", 1 << 20, VirtualClock())
    log.write("stdout", b"one\ntwo\n")
    log.write("stderr", b"no line break")
    log.write("stdout", b"\n" + b"x" * 40_000 + b"\n")
    seen = list(logs.read(tmp_path / "log"))
    assert [(line.stream, line.text, line.partial) for line in seen[:4]] == [
        ("stdout", b"one", False),
        ("stdout", b"two", False),
        ("stderr", b"no line break", True),
        ("stdout", b"", False),
    ]
    assert b"".join(line.text for line in seen[4:]) == b"x" * 40_000
    assert [line.partial for line in seen[4:]] == [True, True, False]


def test_a_log_that_was_renamed_goes_on_under_its_name(tmp_path: Path) -> None:
    log = CriLog(tmp_path / "log", 1 << 20, VirtualClock())
    log.write("stdout", b"before\n")
    (tmp_path / "log").rename(tmp_path / "log.1")
    log.write("stdout", b"meanwhile\n")
    log.reopen()
    log.write("stdout", b"after\n")
    assert [line.text for line in logs.read(tmp_path / "log")] == [b"before", b"meanwhile", b"after"]
    assert (tmp_path / "log").read_bytes().count(b"\n") == 1


def test_a_log_over_its_limit_is_begun_anew(tmp_path: Path) -> None:
    log = CriLog(tmp_path / "log", 1000, VirtualClock())
    for _ in range(100):
        log.write("stdout", b"y" * 100 + b"\n")
    assert 0 < (tmp_path / "log").stat().st_size <= 1000


def test_a_log_that_cannot_be_written_does_not_end_the_minder() -> None:
    log = CriLog(Path("/dev/full"), 1 << 20, VirtualClock())
    log.write("stdout", b"lost\n")
