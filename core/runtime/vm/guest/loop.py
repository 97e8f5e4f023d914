"""One thread that waits for everything: descriptors, children, time. What takes longer than a moment is a job.

A job is a generator that yields *waits*: functions that are given what to call when there is something to go on with.
"""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Generator
from typing import Any, Final

from core.runtime.vm.guest.asking import Refused

Resume = Callable[[Any], None]
Wait = Callable[[Resume], None]
Job = Generator[Wait, Any, Any]
Now = Callable[[], float]

READ: Final = select.EPOLLIN
WRITE: Final = select.EPOLLOUT
HANG_UP: Final = select.EPOLLHUP
_LONGEST: Final = 3600.0


class Loop:
    """Calls back; `now` gives seconds that never jump."""

    def __init__(self, now: Now) -> None:
        self._now = now
        self._poll = select.epoll()
        self._watched: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._made = 0
        self.over = False

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Call `callback` with what happened whenever one of `events` does; 0: only when the other side is gone."""
        if fd in self._watched:
            self._poll.modify(fd, events)
        else:
            self._poll.register(fd, events)
        self._watched[fd] = callback

    def forget(self, fd: int) -> None:
        """Watch it no more; harmless when it was not."""
        if self._watched.pop(fd, None):
            self._poll.unregister(fd)

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call once, not before `seconds` have passed."""
        self._made += 1
        self._timers.append((self._now() + seconds, self._made, callback))
        self._timers.sort(key=lambda timer: timer[:2])

    def pause(self, seconds: float) -> Wait:
        """A wait for time to pass."""
        return lambda resume: self.after(seconds, lambda: resume(None))

    def ready(self, fd: int, events: int, seconds: float) -> Wait:
        """A wait for one of `events` at `fd`, at most so long; a job gets whether it came."""

        def arrange(resume: Resume) -> None:
            settled = False

            def settle(came: bool) -> None:
                nonlocal settled
                if not settled:
                    settled = True
                    self.forget(fd)
                    resume(came)

            self.watch(fd, events, lambda seen: settle(True))
            self.after(seconds, lambda: settle(False))

        return arrange

    def turn(self) -> None:
        """Wait once, and call whom it concerns."""
        wait = min(max(self._timers[0][0] - self._now(), 0.0), _LONGEST) if self._timers else -1
        for fd, events in self._poll.poll(wait):
            if callback := self._watched.get(fd):  # an earlier one of this turn may have ended it
                callback(events)
        while self._timers and self._timers[0][0] <= self._now():
            self._timers.pop(0)[2]()

    def run(self) -> None:
        """Until somebody sets `over`."""
        while not self.over:
            self.turn()


def carry_on(job: Job, done: Callable[[Any, Refused | None], None]) -> None:
    """Run a job; `done` gets its result, or why it was refused. An `OSError` counts as refused."""

    def step(value: Any = None) -> None:
        try:
            wait = job.send(value)
        except StopIteration as end:
            done(end.value, None)
        except Refused as refused:
            done(None, refused)
        except OSError as error:
            done(None, Refused("failed", str(error)))
        else:
            wait(step)

    step()


class Children:
    """All processes that are ours, or that fell to us: each is reaped, and those that somebody waits for are told."""

    def __init__(self, loop: Loop) -> None:
        self._waiting: dict[int, Resume] = {}
        self._ended: dict[int, int] = {}
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        woken, waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only what has a handler wakes the loop
        signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
        loop.watch(woken, READ, lambda _: self._reap(woken))
        self._kept = waker

    def start(self, argv: list[str], stdin: int = -1, stdout: int = -1, stderr: int = -1) -> int:
        """Start a program in a session of its own; -1 is /dev/null. Gives its pid."""
        actions: list[Any] = [
            (os.POSIX_SPAWN_DUP2, self._null if fd < 0 else fd, number)
            for number, fd in enumerate((stdin, stdout, stderr))
        ]
        env = {"PATH": "/usr/bin:/bin"}
        return os.posix_spawn(argv[0], argv, env, file_actions=actions, setsid=True, setsigdef=[signal.SIGPIPE])

    def exit_of(self, pid: int) -> Wait:
        """A wait for the end of a child; a job gets its code, 128+n for signal n. Only one may wait for a child."""

        def arrange(resume: Resume) -> None:
            if (code := self._ended.pop(pid, None)) is None:
                self._waiting[pid] = resume
            else:
                resume(code)

        return arrange

    def run(self, argv: list[str], said: str = "") -> Job:
        """A job: run a program to its end; raises `Refused` with its complaint (the last line of the file `said`)."""
        heard = os.memfd_create("said")
        try:
            code = yield self.exit_of(self.start(argv, stdout=heard, stderr=heard))
            if code:
                text = read_if_there(said) or os.pread(heard, 1 << 16, 0)
                raise Refused("failed", f"{argv[0].rpartition('/')[2]}: {complaint(text) or f'exit code {code}'}")
            return os.pread(heard, 1 << 16, 0)
        finally:
            os.close(heard)

    def _reap(self, woken: int) -> None:
        os.read(woken, 1 << 16)
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            self._tell(pid, os.waitstatus_to_exitcode(status))
        while len(self._ended) > 1000:  # orphans that nobody will ever ask for: the oldest go first
            del self._ended[next(iter(self._ended))]

    def _tell(self, pid: int, code: int) -> None:
        code = code if code >= 0 else 128 - code
        if resume := self._waiting.pop(pid, None):
            resume(code)
        else:
            self._ended[pid] = code


def complaint(text: bytes) -> str:
    """The last line that says something."""
    lines = text.decode("utf-8", "replace").strip().splitlines()
    return lines[-1].strip()[:500] if lines else ""


def read_if_there(path: str) -> bytes:
    """The start of a file; nothing when there is none."""
    if not path:
        return b""
    try:
        with open(path, "rb") as source:
            return source.read(1 << 16)
    except FileNotFoundError:
        return b""
