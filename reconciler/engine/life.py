"""An engine's life: what is done at its start, what runs while it lives, how it ends.

The start, in order: (1) end what a dead engine's helpers left; (2) remove half-made things; (3) list what is here;
(4) look at every object once; (5) go on with what changes. The end: finish what is in hand, start nothing more.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final

from core.values import dataclass
from reconciler.engine.cgroup_home import CgroupHome
from reconciler.engine.engine import Engine
from reconciler.engine.exits import Exits
from reconciler.engine.health_checks import HealthChecks
from reconciler.engine.observe import Eyes
from reconciler.engine.orphans import take_in
from reconciler.engine.requests import Requests
from reconciler.engine.timetable import Timetable
from reconciler.engine.watcher import Watcher
from reconciler.engine.workers import Workers
from reconciler.model.config import Config

RESYNC_SECONDS: Final = 30.0
LOGS_SECONDS: Final = 2.0
DRAIN_SECONDS: Final = (60.0, 3.0)
"""How long each lane's workers may finish what is in hand. A transfer is told to stop; one that hangs on a dead line is
left: what it staged is nobody's, and swept."""
STUCK_SECONDS: Final = 600.0
"""How long no object at all may have been looked at, the images' lane aside. A resync queues every object each 30 s, so
this means that the timetable, the queue, the store or all workers hang; the longest single step (a large root copied
to a slow card) is well below."""
_log: Final = logging.getLogger(__name__)


def ailment(lanes: Sequence[Workers], now: float) -> str:
    """Why an engine with these lanes, the quick one first, hangs at monotonic time `now`; empty while it works.

    Takes no lock: one may be what hangs.
    """
    if not all(lane.living() for lane in lanes):
        return "a worker has ended"
    quiet = now - lanes[0].finished
    return f"no object was looked at for {quiet:.0f} s" if quiet > STUCK_SECONDS else ""


@dataclass(slots=True)
class Life:
    """One engine with its threads. `sweeps` remove half-made things; `rotate` looks after logs."""

    engine: Engine
    eyes: Eyes
    home: CgroupHome
    exits: Exits
    checks: HealthChecks
    watcher: Watcher | None
    workers: Sequence[Workers]
    sweeps: Sequence[Callable[[], object]]
    rotate: Callable[[], None]
    requests: Requests
    timetable: Timetable | None = None
    take_up: Callable[[Config], None] = lambda _: None
    """Has all parts work by another configuration from now on."""

    def start(self) -> None:
        """Steps 2 to 5; step 1 was done when `home` was entered."""
        for sweep in self.sweeps:
            sweep()
        self.eyes.relist()
        self.exits.start()
        for key in take_in(self.eyes):
            _log.warning("%s runs and no store knew of it: taken in as an orphan", key)
        self.engine.resync()
        if self.watcher is not None:
            self.watcher.start()
        if self.timetable is not None:
            self.timetable.every("resync", RESYNC_SECONDS, 0.1, self.resync)
            self.timetable.every("logs", LOGS_SECONDS, 0.1, self.rotate)
            self.timetable.start()
        for lane in self.workers:  # last: where threads are scarce these do with fewer, and the others do not
            lane.start()

    def resync(self) -> None:
        """List what is here and look at everything once more."""
        self.eyes.relist()
        self.engine.resync()

    def idle(self) -> bool:
        """Whether nothing is looked at and nothing waits to be."""
        return self.engine.queue.idle()

    def stop(self) -> None:
        """Finish what is in hand; workloads go on."""
        if self.timetable is not None:
            self.timetable.stop()
        if self.watcher is not None:
            self.watcher.stop()
        for lane in self.workers:
            lane.stop(0.0)  # neither takes another key while the other is waited for
        self.requests.stop(DRAIN_SECONDS[0])
        left = [key for lane, most in zip(self.workers, DRAIN_SECONDS, strict=True) for key in lane.stop(most)]
        if left:
            _log.warning("left in the middle of it: %s", ", ".join(map(str, left)))
        self.checks.stop()
        self.exits.stop()
        self.engine.store.flush()
        self.home.leave()
