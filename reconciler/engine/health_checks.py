"""Asks probes: for every running task that has some, each in its rhythm, and keeps the answers.

Rules of this file: no thread while nothing is to be asked; a question that takes long holds up no other task's; an
answer about a task that is not watched any more is dropped. Answers are kept in memory only: a new engine asks anew.
"""

from __future__ import annotations

import heapq
import itertools
import threading
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Final

from core.clock import Clock
from core.errors import AgentError, Failed, NotFound
from core.network import reach
from core.runtime.ports import Reaching
from core.runtime.table import RuntimeTable
from core.values import dataclass
from reconciler.decide.health import ProbeSeen
from reconciler.model.identity import Key
from reconciler.model.kinds.probes import Probe

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

Ask = Callable[[str, Probe], None]
"""Asks a task once; raises `AgentError` when the answer is no, or none comes in time."""
_THREADS: Final = 4


@dataclass(slots=True, eq=False)
class _Watch:
    key: Key
    task: str
    role: str
    probe: Probe
    seen: ProbeSeen = field(default_factory=ProbeSeen)
    wanted: bool = True


class HealthChecks:
    """`changed(key)` is called when an answer may change a decision; it is quick and does not raise."""

    def __init__(self, ask: Ask, changed: Callable[[Key], None], clock: Clock) -> None:
        self._ask = ask
        self._changed = changed
        self._clock = clock
        self._watches: dict[tuple[str, str], _Watch] = {}
        self._due: list[tuple[float, int, _Watch]] = []
        self._count = itertools.count()
        self._moved = threading.Condition()
        self._stopping = False
        self._pool: ThreadPoolExecutor | None = None
        self._thread: threading.Thread | None = None

    def watch(self, key: Key, task: str, probes: Mapping[str, Probe]) -> Mapping[str, ProbeSeen]:
        """Ask `probes` of a task from now on, and no others of it; returns what is known so far, by role."""
        with self._moved:
            for (id, role), watch in list(self._watches.items()):
                if watch.key == key and (id != task or probes.get(role) != watch.probe):
                    watch.wanted = False
                    del self._watches[id, role]
            for role, probe in probes.items():
                if (task, role) not in self._watches:
                    self._watches[task, role] = watch = _Watch(key, task, role, probe)
                    self._put(watch, self._clock.monotonic())
            return {role: self._watches[task, role].seen for role in probes}

    def forget(self, key: Key) -> None:
        """Ask nothing of a container any more."""
        if self._watches:
            self.watch(key, "", {})

    def stop(self) -> None:
        """Ask nothing more; what is being asked ends by its own limit."""
        with self._moved:
            self._stopping = True
            self._moved.notify()
        if self._thread is not None:
            self._thread.join()
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _put(self, watch: _Watch, when: float) -> None:
        heapq.heappush(self._due, (when, next(self._count), watch))
        if self._thread is None and not self._stopping:
            from concurrent.futures import ThreadPoolExecutor  # only who asks pays for it

            self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="probe")
            self._thread = threading.Thread(target=self._run, name="health", daemon=True)
            self._thread.start()
        self._moved.notify()

    def _run(self) -> None:
        assert self._pool is not None
        while (watch := self._next()) is not None:
            self._pool.submit(self._question, watch)

    def _next(self) -> _Watch | None:
        """The next that is due and still wanted; waits for it. None at the end."""
        with self._moved:
            while not self._stopping:
                while self._due and not self._due[0][2].wanted:
                    heapq.heappop(self._due)
                left = self._due[0][0] - self._clock.monotonic() if self._due else None
                if left is not None and left <= 0:
                    return heapq.heappop(self._due)[2]
                self._moved.wait(left)
        return None

    def _question(self, watch: _Watch) -> None:
        message = ""
        try:
            self._ask(watch.task, watch.probe)
        except (AgentError, OSError) as error:
            message = str(error)[:200]
        with self._moved:
            if not watch.wanted or self._stopping:
                return
            before = watch.seen
            watch.seen = after(before, watch.probe, message)
            self._put(watch, self._clock.monotonic() + watch.probe.every)
            told = _matters(before, watch.probe) != _matters(watch.seen, watch.probe)
        if told:
            self._changed(watch.key)


def after(before: ProbeSeen, probe: Probe, message: str) -> ProbeSeen:
    """What is known after one more answer; `message` "": it was yes."""
    if not message:
        return ProbeSeen(True)
    failures = before.failures + 1
    return ProbeSeen(before.passing and failures < probe.failures, failures, message)


def _matters(seen: ProbeSeen, probe: Probe) -> tuple[bool, int]:
    return seen.passing, 0 if seen.passing else min(seen.failures, probe.failures)


def asker(runtimes: RuntimeTable, boot: str) -> Ask:
    """The way to ask tasks of these runtimes: a command inside, or a server in its network."""

    def ask(task: str, probe: Probe) -> None:
        shim = runtimes.shim(task)
        if probe.exec is not None:
            code, said = shim.ask(task, probe.exec, probe.timeout)
            if code != 0:
                raise Failed(f"exec: exit code {code}{f': {said}' if said else ''}")
            return
        server = probe.tcp or probe.http
        if server is None:  # a probe without a question is refused long before
            return
        path = None if probe.http is None else probe.http.path
        if isinstance(shim, Reaching):
            shim.reach(task, server.port, path, probe.timeout)
            return
        pid = shim.state(task).pid
        if pid is None or not pid.alive(boot):
            raise NotFound(f"{task} does not run")
        _reach(f"/proc/{pid.pid}/ns/net", server.port, path, probe.timeout)

    return ask


def _reach(netns: str, port: int, path: str | None, timeout: float) -> None:
    if path is None:
        reach.connect(netns, port, timeout).close()
        return
    status = reach.get(netns, port, path, timeout)
    if not 200 <= status < 400:
        raise Failed(f"http :{port}{path} says {status}")
