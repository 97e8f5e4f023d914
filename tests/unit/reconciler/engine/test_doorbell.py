import os
import stat
import threading
from pathlib import Path

import pytest

from core.errors import AgentError
from reconciler.engine.doorbell import NAME, Doorbell, ring


@pytest.fixture(params=["short", "long"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path if request.param == "short" else tmp_path / ("l" * 120)
    folder.mkdir(exist_ok=True)
    return folder


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_ring_is_heard_once_however_often_it_was_rung(state: Path) -> None:
    bell = Doorbell.bind(state)
    for _ in range(1000):
        ring(state)
    assert bell.wait(0)
    assert not bell.wait(0)
    bell.close()


def test_ringing_where_nobody_is_does_nothing(state: Path) -> None:
    ring(state)
    ring(state / "no such folder")
    bell = Doorbell.bind(state)
    (state / "other").symlink_to("nowhere")
    bell.close()
    ring(state)


def test_the_socket_is_private_and_goes_when_the_bell_is_closed(state: Path) -> None:
    bell = Doorbell.bind(state)
    seen = (state / NAME).stat()
    assert stat.S_ISSOCK(seen.st_mode)
    assert stat.S_IMODE(seen.st_mode) == 0o600
    bell.close()
    assert not (state / NAME).exists()


def test_a_stale_socket_is_replaced_and_its_loser_does_not_take_the_new_one_away(state: Path) -> None:
    stale = Doorbell.bind(state)
    bell = Doorbell.bind(state)
    ring(state)
    assert not stale.wait(0)
    assert bell.wait(0)
    stale.close()
    ring(state)
    assert bell.wait(0)
    bell.close()


def test_a_file_in_the_way_is_replaced_but_a_folder_is_an_error_that_names_it(state: Path) -> None:
    (state / NAME).write_text("not a socket")
    Doorbell.bind(state).close()
    (state / NAME).mkdir()
    with pytest.raises(AgentError, match=NAME):
        Doorbell.bind(state)


def test_a_listener_is_called_after_a_ring_and_ends_with_the_bell(state: Path) -> None:
    bell = Doorbell.bind(state)
    heard = threading.Semaphore(0)
    bell.listen(heard.release)
    for _ in range(3):
        ring(state)
        assert heard.acquire(timeout=10)
    bell.close()
    assert not any(thread.name == "doorbell" for thread in threading.enumerate())


def test_no_descriptor_is_left_open(state: Path) -> None:
    before = open_descriptors()
    for _ in range(20):
        bell = Doorbell.bind(state)
        ring(state)
        bell.wait(0)
        bell.close()
        ring(state)
    assert open_descriptors() == before
