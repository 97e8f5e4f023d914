"""The other end of a worker process: starts it, asks it one thing at a time, ends it."""

from __future__ import annotations

import os
import select
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any, Final

from core.errors import MissingTool
from core.process import Launcher, kill_group
from core.snapshots.job import Done, Fault, Job, Redo, parse_answer

_GRACE: Final = 30.0


class Worker:
    """One worker. `do` is used by one thread at a time; `kill` may come from another."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._child: Any = None
        self._requests = self._answers = -1
        self._complaints: IO[bytes] | None = None

    def start(self) -> None:
        """Start it, before there is work, so that its start-up costs no time then."""
        request_end, self._requests = os.pipe()
        self._answers, answer_end = os.pipe()
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the worker
        try:
            self._child = self._launcher.start(command(), stdin=request_end, stdout=answer_end, stderr=self._complaints)
        finally:
            os.close(request_end)
            os.close(answer_end)

    def do(self, job: Job) -> Done | Redo | Fault:
        """Have `job` done. A worker that dies, or is silent half a minute past the job's own limit, is a `Fault`."""
        try:
            os.write(self._requests, job.line())
            answer = parse_answer(self._read_line(job.seconds + _GRACE))
        except BrokenPipeError:
            answer = parse_answer(b"")
        if isinstance(answer, Fault) and not answer.message:
            return Fault("Failed", f"a worker that applies layers ended early{self._complaint()}")
        return answer

    def kill(self) -> None:
        """End it at once; harmless when it never started."""
        if self._child is not None and self._child.returncode is None:
            kill_group(self._child)

    def close(self) -> None:
        """End it, idle as it is, and close what it was talked to with."""
        self.kill()
        for fd in (self._requests, self._answers):
            if fd >= 0:
                os.close(fd)
        if self._complaints is not None:
            self._complaints.close()
        self._child, self._requests, self._answers, self._complaints = None, -1, -1, None

    def _read_line(self, seconds: float) -> bytes:
        poller = select.poll()
        poller.register(self._answers, select.POLLIN)
        line = b""
        while not line.endswith(b"\n") and poller.poll(int(seconds * 1000)):
            part = os.read(self._answers, 1 << 16)
            if not part:
                break
            line += part
        return line

    def _complaint(self) -> str:
        if self._complaints is None:
            return ""
        self._complaints.seek(0)
        lines = self._complaints.read().decode("utf-8", "replace").strip().splitlines()
        return f": {lines[-1][:300]}" if lines else ""


def command() -> list[str]:
    """The command line of a worker: an isolated interpreter that knows our packages and runs no site start-up."""
    places = (Path(__file__).parents[2], *(_home(name) for name in ("isal", "zstandard")))
    paths = list(dict.fromkeys(str(place) for place in places))
    start = f"import sys; sys.path[:0] = {paths!r}; from core.snapshots.worker import main; main()"
    return [sys.executable, "-I", "-S", "-c", start]


def _home(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise MissingTool(package, f"python3-{package}")
    return Path(spec.origin).parents[1]
