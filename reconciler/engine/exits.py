"""Death seen at once: a pidfd for each process worth knowing of, one thread that waits for all of them.

Rules of this file: no lock. Descriptors are closed by the thread alone, so that a number it reads from epoll never
means another process by then; everybody else only marks a watch as unwanted and wakes the thread.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from core.proc import ProcessId
from core.values import dataclass
from reconciler.model.identity import Key

_EVENTS: Final = 256


@dataclass(slots=True, eq=False)
class _Watch:
    process: ProcessId
    key: Key
    fd: int
    wanted: bool = True


class Exits:
    """Calls `gone(key)` when a watched process ends; `gone` is quick and does not raise (it adds to the queue).

    `boot` is this boot's id: a process of another boot is gone.
    """

    def __init__(self, gone: Callable[[Key], None], boot: str) -> None:
        self._gone = gone
        self._boot = boot
        self._watches: dict[tuple[ProcessId, Key], _Watch] = {}
        self._by_fd: dict[int, _Watch] = {}
        self._unwanted: deque[_Watch] = deque()
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="exits", daemon=True)

    def start(self) -> None:
        """Start the thread; once. What is watched before that counts too."""
        self._thread.start()

    def watch(self, process: ProcessId, key: Key) -> None:
        """Tell `gone(key)` when this very process has ended; at once, from here, when it has already.

        Watching what is watched changes nothing. Raises `OSError` when no descriptor is left.
        """
        if (process, key) in self._watches:
            return
        fd = process.open() if process.boot == self._boot else None
        if fd is None:
            self._gone(key)
            return
        watch = _Watch(process, key, fd)
        if self._watches.setdefault((process, key), watch) is not watch:
            os.close(fd)
            return
        self._by_fd[fd] = watch
        self._epoll.register(fd, select.EPOLLIN)

    def forget(self, key: Key) -> None:
        """Watch nothing for `key` any more: its object is gone, or it has another process."""
        for watch in list(self._watches.values()):
            if watch.key == key:
                watch.wanted = False
                self._watches.pop((watch.process, key), None)
                self._unwanted.append(watch)
        os.eventfd_write(self._wake, 1)

    def watched(self) -> frozenset[tuple[ProcessId, Key]]:
        """What is watched now."""
        return frozenset(self._watches)

    def stop(self) -> None:
        """End the thread and close every descriptor; nothing is told any more."""
        self._stopping = True
        os.eventfd_write(self._wake, 1)
        if self._thread.ident is not None:
            self._thread.join()
        for fd in [*self._by_fd, self._wake]:
            os.close(fd)
        self._by_fd.clear()
        self._watches.clear()
        self._epoll.close()

    def _run(self) -> None:
        while not self._stopping:
            for fd, _ in self._epoll.poll(maxevents=_EVENTS):
                if fd == self._wake:
                    os.eventfd_read(fd)
                elif (watch := self._by_fd.get(fd)) is not None:
                    self._end(watch)
            while self._unwanted and not self._stopping:
                self._close(self._unwanted.popleft())

    def _end(self, watch: _Watch) -> None:
        self._close(watch)
        self._watches.pop((watch.process, watch.key), None)
        if watch.wanted:
            self._gone(watch.key)

    def _close(self, watch: _Watch) -> None:
        if self._by_fd.get(watch.fd) is watch:
            del self._by_fd[watch.fd]
            # close(2) alone would not do: a child between fork and exec holds the descriptor too, and keeps the event
            with contextlib.suppress(FileNotFoundError):  # forgotten before it was registered
                self._epoll.unregister(watch.fd)
            os.close(watch.fd)
