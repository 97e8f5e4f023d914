"""A kill at each step of an apply: `python -m tests.crash.steps HOST [FIRST [STRIDE]]`.

One apply of a fresh node is traced to the end, which gives the number of points; then for N = 1 … end: a fresh apply
killed at point N (see `tracer` for what a point is), a plain apply that must converge, the universal checker, and a
delete that must leave nothing. The points are of the engine and of its children before they become another program:
helpers and workloads are not traced at all.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests import leftovers
from tests.conftest import Node
from tests.crash import tracer
from tests.crash.ground import Ground, ground

CONTAINERS: Final = ("c0", "c4")
"""One in the shared sandbox, one in a private one."""
PAST: Final = "ended 0"
ENOUGH: Final = 3
"""So many points in a row past the end are the end: how many there are varies a little from run to run."""


@dataclass(slots=True)
class Sweep:
    """Kills at points; `where` counts the calls that were not made any more."""

    ground: Ground
    where: Counter[str] = field(default_factory=Counter)

    def count(self) -> list[str]:
        """The calls at which a whole apply can be killed, in order."""
        lines = self._traced(0)
        assert lines[-1].startswith("points "), "\n".join(lines[-20:])
        self.ground.converged()
        self.ground.delete_all()
        self.ground.wipe()
        return lines[-2].split()

    def kill_at(self, point: int) -> str:
        """One try; `killed CALL`, or `ended 0` past the end. Raises `AssertionError` with what is wrong afterwards."""
        last = self._traced(point)[-1]
        what = f"point {point}: {last}"
        try:
            self.ground.apply()
            self.ground.converged(20)
            self.ground.delete_all()
        except AssertionError as error:
            raise AssertionError(f"{what}: {error}") from error
        self.ground.wipe()
        if last != PAST:
            self.where[last.removeprefix("killed ")] += 1
        return last

    def _traced(self, point: int) -> list[str]:
        self.ground.want(dict.fromkeys(CONTAINERS, "1"), ("web",))
        command = [sys.executable, tracer.__file__, str(point), *self.ground.node.arguments(*self.ground.apply_words)]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
        assert done.returncode == (137 if "\nkilled " in f"\n{done.stdout}" else 0), done.stdout + done.stderr
        return done.stdout.splitlines()


def sweep(made: Ground, first: int = 1, stride: int = 1, *, sample: int = 0, seconds: float = 0.0) -> Sweep:
    """Count, then kill at each `stride`-th point from `first` on, or at `sample` of all, until `seconds` are over."""
    sweeping = Sweep(made)
    began = time.monotonic()
    calls = sweeping.count()
    took = time.monotonic() - began
    print(f"{len(calls)} points: {dict(Counter(calls).most_common())}; a try takes {took:.1f} s", flush=True)
    chosen = spread(len(calls), sample) if sample else range(first, 2 * len(calls), stride)
    past = 0
    for number, point in enumerate(chosen):
        if past == ENOUGH:
            break
        if seconds and time.monotonic() - began > seconds:
            print(f"stopped after {number} of {len(chosen)} points: {seconds:g} s are over", flush=True)
            break
        last = sweeping.kill_at(point)
        past = past + 1 if last == PAST else 0
        print(f"point {point}: {last}", flush=True)
    print(
        f"killed at {sweeping.where.total()} of {len(calls)} points: {dict(sweeping.where.most_common())}", flush=True
    )
    return sweeping


def spread(count: int, sample: int) -> list[int]:
    """`sample` of the numbers 1 … count, in an order that is spread out from the first one on."""
    numbers = range(1, count + 1)
    if sample >= count:
        return list(numbers)
    golden = 0.6180339887498949
    return list(dict.fromkeys(1 + int(((n + 0.5) * golden % 1.0) * count) for n in range(sample)))


def main(words: Sequence[str]) -> int:
    """The command line in this file's docstring."""
    place = leftovers.Place(Path(tempfile.mkdtemp(prefix="rc-", dir="/tmp")))
    node = Node(place)
    try:
        with ground(node, words[0]) as made:
            sweep(made, *map(int, words[1:3]))
    except AssertionError as error:
        print(error, flush=True)
        return 1
    finally:
        if "keep" not in words:
            leftovers.clean(place)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
