"""Fault 23: a number that we keep of a process is that of another process by now. It is never signalled."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.figures import Figure

pytestmark = [pytest.mark.root, pytest.mark.slow]

TICK_SECONDS: Final = 0.02
"""Two ticks of the clock by which the kernel tells when a process started."""


def in_a_small_world(cycles: int) -> tuple[int, int]:
    """Runs `main` in a pid namespace of its own; how often a number came back, and was hit."""
    done = subprocess.run(
        [
            "unshare",
            "--pid",
            "--fork",
            "--mount-proc",
            sys.executable,
            "-m",
            "tests.crash.test_faults_pids",
            str(cycles),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=3000,
        cwd=Path(__file__).resolve().parents[2],
    )
    assert done.returncode == 0, done.stderr
    came_back, hit = map(int, done.stdout.split())
    return came_back, hit


def main(cycles: int) -> None:
    """Keeps a process, lets it end, and has strangers made until one has its number; then signals what was kept."""
    import signal
    import time

    from core.proc import ProcessId, boot_id

    boot, came_back, hit = boot_id(), 0, 0
    last = Path("/proc/sys/kernel/ns_last_pid")
    for _ in range(cycles):
        kept = ProcessId.of(_sleeper(), boot)
        assert kept is not None
        assert kept.signal(signal.SIGKILL), "the very process is signalled"
        os.waitpid(kept.pid, 0)
        time.sleep(TICK_SECONDS)
        last.write_text(str(kept.pid - 1))
        stranger = _sleeper()
        came_back += stranger == kept.pid
        told = kept.signal(signal.SIGTERM) or kept.alive(boot)
        ended, _ = os.waitpid(stranger, os.WNOHANG)
        hit += bool(told or ended)
        if not ended:
            os.kill(stranger, signal.SIGKILL)
            os.waitpid(stranger, 0)
    print(came_back, hit)


def _sleeper() -> int:
    """A child that sleeps."""
    import signal

    if (pid := os.fork()) == 0:
        signal.pause()
        os._exit(0)
    return pid


def test_fault_23_a_number_that_is_another_process_by_now_is_never_signalled(figure: Figure) -> None:
    came_back, hit = in_a_small_world(200)
    figure("numbers that came back as another process", came_back)
    assert came_back > 150
    assert hit == 0


@pytest.mark.soak
def test_fault_23_ten_thousand_numbers_that_came_back_are_never_signalled(figure: Figure) -> None:
    came_back, hit = in_a_small_world(10_000)
    figure("numbers that came back as another process, in the long run", came_back)
    assert came_back > 9_000
    assert hit == 0


if __name__ == "__main__":
    main(int(sys.argv[1]))
