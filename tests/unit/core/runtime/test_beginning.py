"""A task that waits at its fifo, let go without the runtime. The waiting init is played by a shell."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from core import proc
from core.proc import ProcessId
from core.runtime.beginning import FIFO, begin

WAITS = 'exec 3>"$0"; printf 0 >&3; exec 3>&-; exec sleep 1000'
QUICK = 'exec 3>"$0"; printf 0 >&3'
DIES = "read line; exit 1"
KEEPS_STILL = 'exec 3<>"$0"; exec sleep 1000'


@contextmanager
def init(folder: Path, script: str) -> Iterator[tuple[ProcessId, subprocess.Popen[bytes]]]:
    fifo = folder / FIFO
    os.mkfifo(fifo)
    child = subprocess.Popen(["/bin/sh", "-c", script, str(fifo)], stdin=subprocess.PIPE)
    try:
        found = ProcessId.of(child.pid, proc.boot_id())
        assert found is not None
        yield found, child
    finally:
        child.kill()
        child.communicate()


@pytest.mark.parametrize("script", [WAITS, QUICK])
def test_one_that_waits_begins_and_its_fifo_goes(tmp_path: Path, script: str) -> None:
    with init(tmp_path, script) as (first, _):
        assert begin(tmp_path, first)
        assert not (tmp_path / FIFO).exists()
        assert not begin(tmp_path, first, 0.1), "it begins once"


def test_one_that_dies_while_it_is_waited_for_is_left_to_the_runtime(tmp_path: Path) -> None:
    with init(tmp_path, DIES) as (first, child):
        assert child.stdin is not None
        child.stdin.close()
        assert not begin(tmp_path, first)
        assert (tmp_path / FIFO).exists()


def test_one_that_writes_nothing_in_time_is_left_to_the_runtime(tmp_path: Path) -> None:
    with init(tmp_path, KEEPS_STILL) as (first, _):
        assert not begin(tmp_path, first, 0.2)
        assert (tmp_path / FIFO).exists()


def test_where_there_is_no_fifo_the_runtime_is_asked(tmp_path: Path) -> None:
    with init(tmp_path, WAITS) as (first, _):
        (tmp_path / FIFO).unlink()
        assert not begin(tmp_path, first)
        (tmp_path / FIFO).write_text("no fifo")
        assert not begin(tmp_path, first)
        assert (tmp_path / FIFO).read_text() == "no fifo"


def test_a_process_that_is_gone_is_left_to_the_runtime(tmp_path: Path) -> None:
    with init(tmp_path, "exit 0") as (first, child):
        child.wait()
        assert not begin(tmp_path, first)
