"""Starting programs: bounded in time and output, with closed descriptors, in the helpers' control group.

Rules of this file: nothing else imports subprocess. A child gets only the descriptors it is given. Its output goes to
unnamed files, never to a pipe that is read to its end, because a workload may inherit it and hold it open. A child of
the engine enters the engine's *helpers* group before it becomes the program, so that the next engine can end what
a killed one left behind: the group belongs to one engine's life, and a latecomer finds it gone and gives up.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import field
from pathlib import Path
from typing import IO, Final

from core.errors import Failed, MissingTool, TimedOut
from core.values import dataclass

_ENTER: Final = 'echo 0 >"$0" || exit 125; exec "$@"'
CLEAN_ENV: Final[Mapping[str, str]] = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
}


@dataclass(frozen=True, slots=True)
class Result:
    """How a program ended: `code` is its exit code, or minus the signal's number."""

    code: int
    stdout: bytes
    stderr: bytes

    def text(self) -> str:
        """stdout as text."""
        return self.stdout.decode("utf-8", "replace")

    def complaint(self) -> str:
        """The last non-empty line of stderr (or stdout): what a person wants to read."""
        lines = (self.stderr or self.stdout).decode("utf-8", "replace").strip().splitlines()
        return lines[-1].strip()[:500] if lines else f"exit code {self.code}"


Child = subprocess.Popen[bytes]
PIPE: Final = subprocess.PIPE


def find(program: str, package: str = "") -> str:
    """The full path of `program`; raises `MissingTool` with the Debian package that has it."""
    path = shutil.which(program, path=os.environ.get("PATH", "") + ":" + CLEAN_ENV["PATH"])
    if path is None:
        raise MissingTool(program, package or program)
    return path


@dataclass(slots=True)
class Launcher:
    """Starts programs; with a `group` (a cgroup folder) every child enters it first. One per engine, handed down."""

    group: Path | None = None
    env: Mapping[str, str] = field(default_factory=lambda: CLEAN_ENV)

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command line that enters the group and then becomes `argv`."""
        if self.group is None:
            return list(argv)
        return ["/bin/sh", "-c", _ENTER, str(self.group / "cgroup.procs"), *argv]

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: bytes = b"",
        timeout: float = 60.0,
        cwd: str | None = None,
        limit: int = 1 << 20,
        env: Mapping[str, str] | None = None,
        descendants: bool = False,
    ) -> Result:
        """Run a program to its end; keeps at most `limit` bytes of each output; `env` goes beside the launcher's own.

        Raises `TimedOut` (the child's group is killed; with `descendants` also what left it), `MissingTool`. A non-zero
        code is the caller's to judge.
        """
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            given.write(stdin)
            given.seek(0)
            child = self.start(argv, stdin=given if stdin else None, stdout=out, stderr=err, cwd=cwd, env=env)
            if not ended(child, timeout):
                left = _descendants(child.pid) if descendants else []
                kill_group(child)
                _kill(left)
                raise TimedOut(f"{Path(argv[0]).name} did not end within {timeout:g} s")
            return Result(child.returncode, _head(out, limit), _head(err, limit))

    def check(
        self, argv: Sequence[str], *, stdin: bytes = b"", timeout: float = 60.0, cwd: str | None = None
    ) -> Result:
        """`run`, and raise `Failed` with the program's own complaint when its code is not 0."""
        result = self.run(argv, stdin=stdin, timeout=timeout, cwd=cwd)
        if result.code != 0:
            raise Failed(f"{Path(argv[0]).name}: {result.complaint()}")
        return result

    def start(
        self,
        argv: Sequence[str],
        *,
        stdin: int | IO[bytes] | None = None,
        stdout: int | IO[bytes] | None = None,
        stderr: int | IO[bytes] | None = None,
        pass_fds: Sequence[int] = (),
        cwd: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program in a session of its own and return at once; None for a stream means /dev/null."""
        try:
            return subprocess.Popen(
                self.command(argv),
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=subprocess.DEVNULL if stdout is None else stdout,
                stderr=subprocess.DEVNULL if stderr is None else stderr,
                pass_fds=pass_fds,
                cwd=cwd,
                env={**self.env, **(env or {})},
                start_new_session=True,
            )
        except FileNotFoundError:
            raise MissingTool(argv[0], Path(argv[0]).name) from None


def ended(child: Child, timeout: float) -> bool:
    """Wait up to `timeout` seconds for its end, by pidfd: Popen's own wait polls then, and is up to 50 ms late."""
    fd = os.pidfd_open(child.pid)
    try:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        if not poller.poll(timeout * 1000):
            return False
    finally:
        os.close(fd)
    child.wait()
    return True


def kill_group(child: subprocess.Popen[bytes]) -> None:
    """SIGKILL a child and what it started in its session, and reap it."""
    with contextlib.suppress(ProcessLookupError):  # it ended by itself meanwhile
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def _descendants(pid: int) -> list[int]:
    """Descriptors (pidfd) of all that descends from `pid` now; the caller closes them."""
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):  # a child is listed with the thread that made it
        with contextlib.suppress(OSError):  # it has ended at this moment
            for child in map(int, thread.read_text().split()):
                found += [os.pidfd_open(child), *_descendants(child)]
    return found


def _kill(processes: list[int]) -> None:
    for fd in processes:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(fd, signal.SIGKILL)
        os.close(fd)


def _head(source: IO[bytes], limit: int) -> bytes:
    source.seek(0)
    return source.read(limit)


def foreground(argv: Sequence[str], *, env: Mapping[str, str] | None = None) -> int:
    """Run a program on our own stdin, stdout and stderr (a person's terminal); returns its code, 128+n for signal n."""
    try:
        code = subprocess.call(list(argv), env={**CLEAN_ENV, **(env or {})})
    except FileNotFoundError:
        raise MissingTool(argv[0], Path(argv[0]).name) from None
    return code if code >= 0 else 128 - code
