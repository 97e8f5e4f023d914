"""Rounds of killing at random moments: `python -m tests.crash.rounds HOST SEED COUNT [reboot]`.

A round changes what is wanted (containers come, change and go), kills while that is being carried out, starts the next
run, and waits for the universal checker's yes. All choices come from the seed; moments are fractions of the time that
a change usually takes here, so that a seed means the same on a slow machine.

- `agent`: the agent is killed, perhaps the next one too; another one must converge.
- `apply`: a one-shot is killed; the next plain apply must converge.
- `children`: the engine lives, some of its children and monitors are killed; an agent must get over that by itself,
  after a one-shot the next apply must.

With `reboot` all that runs dies with the engine, the state folder and every mount go, and the boot has another id,
shown by a bind mount over the kernel's: run it in a mount namespace of its own (`unshare --mount`).
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from core import cgroups
from core.clock import SystemClock
from reconciler.model.identity import Key, Kind
from tests import leftovers
from tests.conftest import Node
from tests.crash.checker import start_time
from tests.crash.ground import NAMES, Ground, ground

BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
KINDS: Final = ("agent", "apply", "children")


@dataclass(frozen=True, slots=True)
class Round:
    """What one round does. `moments`: when to kill, as fractions of the time that the work usually takes."""

    kind: str
    containers: Mapping[str, str]
    moments: tuple[float, ...]
    one_shot: bool
    images: tuple[str, ...]
    """Images to hold beside the containers' own; they are pulled anew each time they come back."""
    draw: int
    """The seed of the choice of children."""


def rounds(seed: int, count: int) -> Iterator[Round]:
    """The rounds of a seed; the first makes all containers."""
    draw = random.Random(seed)
    wanted = dict.fromkeys(NAMES, "0")
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        times = 3 if kind == "children" else draw.choice((1, 1, 2))
        moments = tuple(sorted(draw.random() for _ in range(times)))
        images = ("web",) if number // len(KINDS) % 2 == 0 else ()
        yield Round(kind, dict(wanted), moments, draw.random() < 0.5, images, draw.getrandbits(32))
        wanted = changed(wanted, str(number + 1), draw)


def changed(containers: Mapping[str, str], version: str, draw: random.Random) -> dict[str, str]:
    """Some go, some change to `version`, some come; never nothing."""
    while True:
        after = {}
        for name in NAMES:
            dice = draw.random()
            if name in containers and dice < 0.75:
                after[name] = version if dice < 0.4 else containers[name]
            elif name not in containers and dice < 0.7:
                after[name] = version
        if after and after != containers:
            return after


@dataclass(slots=True)
class Runner:
    """Carries rounds out on a ground; keeps what was killed and how long it took to get over it."""

    ground: Ground
    reboot: bool = False
    usual_apply: float = 0.0
    usual_work: float = 0.0
    killed: list[str] = field(default_factory=list)
    recoveries: list[float] = field(default_factory=list)

    def measure(self) -> None:
        """Learn how long an apply that makes everything takes here, and one that finds nothing to do; delete it all."""
        self.ground.want(dict.fromkeys(NAMES, "first"))  # another spec, and so other ids
        began = time.monotonic()
        self.ground.apply()
        between = time.monotonic()
        self.ground.apply()
        self.usual_apply = between - began
        self.usual_work = max(0.3 * self.usual_apply, self.usual_apply - (time.monotonic() - between))
        self.ground.converged()
        self.ground.delete_all()

    def run(self, one: Round) -> None:
        """One round; raises `AssertionError` with the faults."""
        self.killed.clear()
        self.ground.want(one.containers, one.images)
        {"agent": self._agent, "apply": self._apply, "children": self._children}[one.kind](one)
        self.recoveries.append(self.ground.converged())

    def _agent(self, one: Round) -> None:
        self._have_agent()
        committing = self._commit()
        before = 0.0
        for moment in one.moments:
            time.sleep((moment - before) * self.usual_work)
            before = moment
            self.ground.kill_agent()
            self.killed.append("agent")
            if self.reboot:
                committing.wait(60)
                self._reboot()
            self.ground.start_agent()
        assert committing.wait(60) == 0

    def _have_agent(self) -> None:
        if self.ground.agent is None:
            self.ground.start_agent()

    def _commit(self) -> subprocess.Popen[bytes]:
        """Tell the store what is wanted, and return as soon as it knows; the command is still about to end."""
        words = [word for word in self.ground.apply_words if word not in ("--timeout", "60s")]
        child = self.ground.node.spawn(*words, "--no-wait")
        deadline = time.monotonic() + 60
        while not self._committed():
            assert child.poll() in (None, 0), "apply --no-wait failed"
            assert time.monotonic() < deadline, "apply --no-wait commits nothing"
            time.sleep(0.01)
        return child

    def _committed(self) -> bool:
        if not (self.ground.node.root / "store.db").exists():
            return False
        with suppress(AssertionError):  # the store is being made
            return all(
                (obj := self.ground.store.get(Key(Kind.CONTAINER, name))) is not None
                and obj.spec["env"][0]["value"] == version
                for name, version in self.ground.containers.items()
            )
        return False

    def _apply(self, one: Round) -> None:
        self.ground.stop_agent()
        for moment in one.moments:
            victim = self.ground.node.spawn(*self.ground.apply_words)
            with suppress(subprocess.TimeoutExpired):
                victim.wait(moment * self.usual_apply)
            victim.kill()
            self.killed.append("apply" if victim.wait() == -signal.SIGKILL else "apply (it had ended)")
            if self.reboot:
                self._reboot()
        self.ground.apply()

    def _children(self, one: Round) -> None:
        if one.one_shot:
            self.ground.stop_agent()
            engine = self.ground.node.spawn(*self.ground.apply_words)
            self._kill_children(one, engine, self.usual_apply)
            engine.wait(90)
            if self.reboot:
                self._reboot()
            self.ground.apply()
        else:
            self._have_agent()
            committing = self._commit()
            assert self.ground.agent is not None
            self._kill_children(one, self.ground.agent, self.usual_work)
            assert committing.wait(60) == 0

    def _kill_children(self, one: Round, engine: subprocess.Popen[bytes], usual: float) -> None:
        draw = random.Random(one.draw)
        began = time.monotonic()
        for moment in one.moments:
            time.sleep(max(0.0, began + moment * usual - time.monotonic()))
            whom = self._monitors if draw.random() < 0.3 else self._helpers
            until = time.monotonic() + 0.5
            while engine.poll() is None and time.monotonic() < until:
                if candidates := sorted(whom(engine.pid)):
                    self._kill(draw.choice(candidates))
                    break
                time.sleep(0.001)

    def _kill(self, pid: int) -> None:
        words = leftovers.read_bytes(f"/proc/{pid}/cmdline").split(b"\0")
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.killed.append(b" ".join(Path(os.fsdecode(word)).name.encode() for word in words[:4]).decode())

    def _groups(self, name: str) -> Iterator[int]:
        top = cgroups.hierarchies().tracking
        assert top is not None
        for folder in (top / f"reconciler-{self.ground.node.instance}").glob(name):
            yield from cgroups.members(folder)

    def _monitors(self, _: int) -> set[int]:
        return set(self._groups("monitors"))

    def _helpers(self, engine: int) -> set[int]:
        """Runtime calls, monitors that are not moved out yet, unpack workers; also before they are in their group."""
        found = set(self._groups("helpers/*"))
        for thread in Path(f"/proc/{engine}/task").glob("*/children"):
            found.update(map(int, leftovers.read_bytes(str(thread)).split()))
        return found

    def _reboot(self) -> None:
        """Everything that a reboot ends or empties."""
        place = self.ground.place
        new_boot(place.folder / "boot_id")
        power_off(place)
        self.killed.append("machine")


def power_off(place: leftovers.Place) -> None:
    """End every process of the node, undo its mounts, remove its groups and its state folder."""
    deadline = time.monotonic() + 10
    while pids := [pid for pid in leftovers.processes(place) if start_time(pid) is not None]:
        assert time.monotonic() < deadline, f"processes do not die: {pids}"
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    for mount in reversed(list(leftovers.mounts(place))):
        subprocess.run(["umount", "--lazy", mount.target], check=True)
    for top in leftovers.cgroups(place):
        cgroups.end(top, SystemClock())
    if place.state.exists():  # a kill may come before it is made
        shutil.rmtree(place.state)


def new_boot(file: Path) -> None:
    """Another boot id for this mount namespace."""
    first = not file.exists()
    file.write_text(f"{uuid.uuid4()}\n")
    if first:
        subprocess.run(["mount", "--bind", file, BOOT_ID], check=True)
    assert BOOT_ID.read_text() == file.read_text()


def run_rounds(runner: Runner, seed: int, count: int) -> None:
    """All of them, a line each; then everything is deleted, and nothing may be left."""
    runner.measure()
    print(f"an apply takes {runner.usual_apply:.1f} s here, {runner.usual_work:.1f} s of it work", flush=True)
    for number, one in enumerate(rounds(seed, count)):
        began = time.monotonic()
        what = f"seed {seed} round {number:3} {one.kind:8} {' '.join(f'{m:.3f}' for m in one.moments)}"
        try:
            runner.run(one)
        except AssertionError as error:
            raise AssertionError(f"{what}: killed {runner.killed}: {error}") from error
        took = time.monotonic() - began
        print(f"{what}: killed {', '.join(runner.killed) or 'nobody'}; {took:.1f} s", flush=True)
    runner.ground.delete_all()
    worst = max(runner.recoveries)
    print(f"{count} rounds; after the next run had begun it took at most {worst:.1f} s to converge", flush=True)


def main(words: Sequence[str]) -> int:
    """The command line in this file's docstring."""
    host, seed, count = words[0], int(words[1]), int(words[2])
    reboot = "reboot" in words[3:]
    place = leftovers.Place(Path(tempfile.mkdtemp(prefix="rc-", dir="/tmp")))
    node = Node(place)
    try:
        with ground(node, host) as made:
            if reboot:
                made.words = ("--private-mounts",)
                new_boot(place.folder / "boot_id")
            run_rounds(Runner(made, reboot), seed, count)
    except AssertionError as error:
        print(error, flush=True)
        return 1
    finally:
        if "keep" not in words:
            node.stop()
            if reboot:
                subprocess.run(["umount", BOOT_ID], check=False)
            leftovers.clean(place)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
