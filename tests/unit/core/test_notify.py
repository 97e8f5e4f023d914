import os
import socket
from pathlib import Path

import pytest

from core.notify import Notifier


@pytest.fixture
def manager(tmp_path: Path) -> socket.socket:
    made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    made.bind(str(tmp_path / "n"))
    made.settimeout(5)
    return made


def test_everything_is_said_in_the_words_of_the_protocol(tmp_path: Path, manager: socket.socket) -> None:
    with manager:
        notifier = Notifier(str(tmp_path / "n"))
        notifier.status("one\ntwo")
        notifier.status("one\ntwo")
        notifier.ready()
        notifier.beat()
        notifier.reloading(12.5)
        notifier.stopping()
        said = [manager.recv(100) for _ in range(5)]
    reloading = b"RELOADING=1\nMONOTONIC_USEC=12500000"
    assert said == [b"STATUS=one two", b"READY=1", b"WATCHDOG=1", reloading, b"STOPPING=1"]


def test_an_abstract_socket_is_spoken_to() -> None:
    name = f"reconciler-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}")
        manager.settimeout(5)
        Notifier(f"@{name}").ready()
        assert manager.recv(100) == b"READY=1"


@pytest.mark.parametrize(
    ("environ", "pause"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "60000000"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "7"}, 30.0),
        ({"WATCHDOG_USEC": "60000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "often"}, None),
    ],
)
def test_a_sign_of_life_is_due_at_half_of_what_the_manager_bears(environ: dict[str, str], pause: float | None) -> None:
    assert Notifier.of(environ, 7).pause == pause


def test_a_manager_that_is_gone_or_deaf_holds_nobody_up(tmp_path: Path, manager: socket.socket) -> None:
    with manager:
        for _ in range(2000):  # more than its socket takes
            Notifier(str(tmp_path / "n")).beat()
    Notifier(str(tmp_path / "n")).beat()
    Notifier(str(tmp_path / "never")).beat()
    Notifier().beat()
