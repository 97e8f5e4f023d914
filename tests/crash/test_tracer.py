"""The tracer that kills: it counts over all threads, stops a program at a point exactly, and lets go of helpers."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.crash import tracer
from tests.crash.steps import spread

pytestmark = pytest.mark.skipif(not tracer.supported(), reason="the numbers of this machine's calls are not known")

THREADS = """
import os, sys, threading
def work(name):
    for _ in range(3):
        fd = os.open(os.path.join(sys.argv[1], name), os.O_CREAT | os.O_WRONLY)
        os.fsync(fd)
        os.close(fd)
        print(name, flush=True)
for name in "abc":
    thread = threading.Thread(target=work, args=(name,))
    thread.start()
    thread.join()
"""
HELPER = """
import subprocess, sys, time
helper = subprocess.Popen(["/bin/sleep", "1"])
until = time.monotonic() + 0.8
while "TracerPid:\\t0\\n" not in (status := open(f"/proc/{helper.pid}/status").read()) and time.monotonic() < until:
    pass
print("traced by", status.split("TracerPid:")[1].split()[0], helper.wait(), flush=True)
"""


def traced(point: int, program: str, *words: str) -> list[str]:
    argv = [sys.executable, tracer.__file__, str(point), sys.executable, "-I", "-c", program, *words]
    return subprocess.run(argv, capture_output=True, text=True, timeout=60).stdout.splitlines()


def calls_of(tmp_path: Path) -> list[str]:
    *_, calls, count = traced(0, THREADS, str(tmp_path))
    assert count == f"points {len(calls.split())}"
    return calls.split()


def test_calls_of_all_threads_are_counted_in_one_row(tmp_path: Path) -> None:
    assert calls_of(tmp_path).count("fsync") == 9


@pytest.mark.parametrize("nth", [1, 4, 9])
def test_a_program_is_killed_before_its_nth_call_is_carried_out(tmp_path: Path, nth: int) -> None:
    fsyncs = [number for number, call in enumerate(calls_of(tmp_path), 1) if call == "fsync"]
    *said, last = traced(fsyncs[nth - 1], THREADS, str(tmp_path))
    assert last == "killed fsync"
    assert len(said) == nth - 1


def test_a_point_past_the_end_kills_nobody(tmp_path: Path) -> None:
    assert traced(10_000, THREADS, str(tmp_path))[-1] == "ended 0"


def test_a_helper_is_let_go_of_when_it_becomes_another_program() -> None:
    assert traced(0, HELPER)[0] == "traced by 0 0"


def test_a_sample_of_points_is_spread_and_holds_none_twice() -> None:
    sample = spread(700, 12)
    assert len(set(sample)) == 12
    assert max(b - a for a, b in zip(sorted(sample), sorted(sample)[1:], strict=False)) < 140
    assert spread(5, 9) == [1, 2, 3, 4, 5]
