"""Each single write and sync of an apply refused: `python -m tests.crash.refusals HOST [FIRST [STRIDE]]`.

One apply of a fresh node is counted; then for N a fresh apply whose Nth write or sync below root fails (no space,
quota, read-only, in turn): it gets over that by itself, or ends with a typed error; nothing half-made is left; the
next apply converges, and a delete leaves nothing. What workers and helpers write is not refused: they are let go of.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests import leftovers
from tests.conftest import Node
from tests.crash import failing
from tests.crash.checker import staging
from tests.crash.ground import Ground, ground
from tests.crash.steps import spread

ERRORS: Final = ("ENOSPC", "EDQUOT", "EROFS")
CODES: Final = (0, 1, 3)
HALF_MADE_SECONDS: Final = 10.0


@dataclass(slots=True)
class Refusals:
    """Fails points; `where` counts the calls that were refused, `got_over` the applies that ended well all the same."""

    ground: Ground
    where: Counter[str] = field(default_factory=Counter)
    got_over: int = 0

    def count(self) -> int:
        """How many points a whole apply has."""
        done = self._traced(0, ERRORS[0])
        assert done.returncode == 0, done.stdout + done.stderr
        self.ground.converged()
        self._clean()
        return int(done.stdout.split()[-1])

    def refuse(self, point: int) -> str:
        """One try; raises `AssertionError` with what is wrong."""
        error = ERRORS[point % len(ERRORS)]
        done = self._traced(point, error)
        last = done.stdout.splitlines()[-1]
        what = f"point {point}: {last} with {error}: ended with {done.returncode}: {done.stderr[-2000:]}"
        assert done.returncode in CODES, what
        assert "Traceback" not in done.stderr, what
        # One call that fails among others that do not: SQLite calls all but ENOSPC an I/O error.
        assert done.returncode == 0 or "no space" in done.stderr or "disk I/O error" in done.stderr, what
        try:
            self._nothing_half_made()
            self.ground.apply()
            self.ground.converged(30)
            self._clean()
        except AssertionError as error_then:
            raise AssertionError(f"{what}: {error_then}") from error_then
        if last != "past":
            self.where[last.split()[1]] += 1
            self.got_over += done.returncode == 0
        return f"{last} with {error}, ended with {done.returncode}"

    def _nothing_half_made(self) -> None:
        deadline = time.monotonic() + HALF_MADE_SECONDS
        while found := [one for one in staging(self.ground.place) if " of a blob" not in one]:
            assert time.monotonic() < deadline, found
            time.sleep(0.1)

    def _clean(self) -> None:
        self.ground.delete_all()
        self.ground.wipe()

    def _traced(self, point: int, error: str) -> subprocess.CompletedProcess[str]:
        node = self.ground.node
        self.ground.want({"c0": "1"})
        words = [str(point), error, str(node.root), *node.arguments(*self.ground.apply_words)]
        command = [sys.executable, failing.__file__, *words]
        return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)


def refuse_all(made: Ground, points: Iterable[int] = (), *, sample: int = 0, seconds: float = 0.0) -> Refusals:
    """Count, then refuse `points`, or `sample` of all that there are (0: all), until `seconds` are over."""
    refusals, began = Refusals(made), time.monotonic()
    count = refusals.count()
    print(f"{count} points; a try takes {time.monotonic() - began:.1f} s", flush=True)
    for point in points or spread(count, sample or count):
        if (seconds and time.monotonic() - began > seconds) or point > count:
            break
        print(f"point {point}: {refusals.refuse(point)}", flush=True)
    print(f"refused {dict(refusals.where)}; {refusals.got_over} were got over within the same apply", flush=True)
    return refusals


def main(words: Sequence[str]) -> int:
    """The command line in this file's docstring."""
    place = leftovers.Place(Path(tempfile.mkdtemp(prefix="rc-", dir="/tmp")))
    try:
        with ground(Node(place), words[0]) as made:
            first, stride = (int(word) for word in (*words[1:3], *("1", "1")[len(words) - 1 :]))
            refuse_all(made, range(first, 1 << 20, stride))
    except AssertionError as error:
        print(error, flush=True)
        return 1
    finally:
        leftovers.clean(place)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
