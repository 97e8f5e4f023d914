"""Logs in the CRI format: read, followed, rotated."""

import os
from pathlib import Path

import pytest

from core.clock import VirtualClock
from core.runtime import logs
from core.runtime.logs import Line


def line(number: int, stream: str = "stdout", tag: str = "F") -> str:
    """A log line, one second after the other."""
    return f"2023-11-14T22:13:{20 + number:02d}.000000000+00:00 {stream} {tag} line {number}\n"


def texts(lines: object) -> list[str]:
    return [entry.text.decode() for entry in lines]  # type: ignore[attr-defined]  # an iterator of Line


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"2023-11-14T22:13:20.500000000Z stdout F hello  world ", Line(1700000000.5, "stdout", b"hello  world ")),
        (b"2023-11-15T00:13:20.25+02:00 stderr P part", Line(1700000000.25, "stderr", b"part", True)),
        (b"2023-11-14T22:13:20Z stdout F ", Line(1700000000.0, "stdout", b"")),
        (b"2023-11-14T22:13:20Z stdout F \xff\x00", Line(1700000000.0, "stdout", b"\xff\x00")),
        (b"torn", Line(0.0, "raw", b"torn")),
        (b"not-a-time stdout F x", Line(0.0, "raw", b"not-a-time stdout F x")),
        (b"", Line(0.0, "raw", b"")),
    ],
)
def test_a_line_is_time_stream_and_text(raw: bytes, expected: Line) -> None:
    assert logs.parse(raw) == expected


def fill(path: Path) -> None:
    """Nine lines in three files."""
    for name, numbers in ((".2", (0, 1, 2)), (".1", (3, 4, 5)), ("", (6, 7, 8))):
        path.with_name(path.name + name).write_text("".join(map(line, numbers)))


def test_rotated_files_are_read_oldest_first(tmp_path: Path) -> None:
    fill(tmp_path / "log")
    assert texts(logs.read(tmp_path / "log")) == [f"line {n}" for n in range(9)]
    assert texts(logs.read(tmp_path / "log", tail=4)) == [f"line {n}" for n in range(5, 9)]
    assert texts(logs.read(tmp_path / "log", tail=0)) == []
    assert texts(logs.read(tmp_path / "log", tail=99)) == [f"line {n}" for n in range(9)]
    assert texts(logs.read(tmp_path / "log", since=1700000007.0)) == ["line 7", "line 8"]


def test_a_log_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert list(logs.read(tmp_path / "log")) == []


def test_a_line_still_being_written_is_left_for_later(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(line(0) + "2023-11-14T22:13:21Z stdout F ha")
    assert texts(logs.read(tmp_path / "log")) == ["line 0"]


class Story(VirtualClock):
    """A clock on which each sleep lets the next thing happen."""

    def __init__(self, *steps: object) -> None:
        super().__init__()
        self.steps = list(steps)

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        if self.steps:
            self.steps.pop(0)()  # type: ignore[operator]  # steps are callables

    def over(self) -> bool:
        return not self.steps


def append(path: Path, *numbers: int) -> object:
    def step() -> None:
        with open(path, "a") as out:
            out.write("".join(map(line, numbers)))

    return step


def test_new_lines_are_followed_until_it_is_over(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(line(0))
    clock = Story(append(path, 1), append(path, 2, 3))
    assert texts(logs.follow(path, clock, clock.over)) == ["line 1", "line 2", "line 3"]
    clock = Story(append(path, 4))
    assert texts(logs.follow(path, clock, clock.over, start=0)) == [f"line {n}" for n in range(5)]


def test_following_goes_on_across_rotation_and_misses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("")
    old = open(path, "a")  # noqa: SIM115 — the monitor's own descriptor, which stays on the renamed file

    def rotate() -> None:
        logs.rotate(path, lambda: True, max_size=0, keep=3)
        old.write(line(1))
        old.flush()

    clock = Story(append(path, 0), rotate, append(path, 2), rotate, append(path, 3))
    seen = texts(logs.follow(path, clock, clock.over))
    assert [text for text in seen if text != "line 1"] == ["line 0", "line 2", "line 3"]
    assert "line 1" in seen
    old.close()


def test_a_log_written_anew_is_followed_from_its_start(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(line(0))

    def anew() -> None:
        (tmp_path / "new").write_text(line(5))
        os.rename(tmp_path / "new", path)

    clock = Story(anew)
    assert texts(logs.follow(path, clock, clock.over)) == ["line 5"]


def test_a_log_that_comes_later_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "log"
    clock = Story(lambda: None, append(path, 0))
    assert texts(logs.follow(path, clock, clock.over, start=0)) == ["line 0"]
    assert texts(logs.follow(tmp_path / "never", clock, clock.over)) == []


def test_a_log_over_its_size_is_rotated_and_the_oldest_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log"
    reopened: list[int] = []

    def reopen() -> bool:
        path.touch()
        reopened.append(1)
        return True

    path.write_text("x" * 9)
    assert not logs.rotate(path, reopen, max_size=10, keep=3)
    for name in "abcd":
        path.write_text(name * 10)
        assert logs.rotate(path, reopen, max_size=10, keep=3)
    assert [(file.name, file.read_text()[:1]) for file in logs.files(path)] == [
        ("log.2", "c"),
        ("log.1", "d"),
        ("log", ""),
    ]
    assert len(reopened) == 4


def test_a_rotation_that_was_killed_before_the_reopening_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.with_name("log.1").write_text("x")
    assert logs.rotate(path, lambda: True, max_size=10, keep=3)
    assert not logs.rotate(tmp_path / "other", lambda: False, max_size=10, keep=3)  # nobody writes it


def test_a_log_that_somebody_removed_is_begun_anew(tmp_path: Path) -> None:
    log = tmp_path / "web.log"
    assert logs.rotate(log, lambda: bool(log.write_text("") == 0), max_size=10, keep=3)
    assert log.exists()
