"""Collection under random pulls, deletions, containers and kills: nothing that is needed ever goes, all else does."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from core.clock import VirtualClock
from core.content.store import ContentStore, Span
from core.digest import Digest, chain_id
from core.errors import Busy
from core.process import Launcher
from core.runtime.apparmor import AppArmor
from core.runtime.table import RuntimeTable
from core.snapshots.native import NativeSnapshotter
from core.snapshots.ports import SnapshotInUse
from reconciler.decide.marking import keep_of
from reconciler.engine.collecting import GRACE, Collector
from reconciler.engine.exits import Exits
from reconciler.engine.health_checks import HealthChecks
from reconciler.engine.hooks import Hooks
from reconciler.engine.images import ImageHands
from reconciler.engine.observe import Eyes
from reconciler.engine.recovery import NOTICE
from reconciler.engine.remotes import Remotes, TransferSettings
from reconciler.model.actions import ForgetImage, RemoveChain
from reconciler.model.identity import Key, Kind
from reconciler.model.objects import ORPHAN, Object, with_record
from reconciler.store.functions import modify
from reconciler.store.memory import MemoryStore
from reconciler.store.port import Put, Remove

LAYERS: Final = [bytes([number]) * (number + 1) for number in range(6)]
images = st.lists(st.integers(0, len(LAYERS) - 1), min_size=1, max_size=4).map(tuple)
Layers = tuple[int, ...]


def chains(layers: Layers) -> list[str]:
    """The chain ids of an image, base first."""
    found: list[str] = []
    above: Digest | None = None
    for number in layers:
        above = chain_id(above, Digest.of(b"plain" + LAYERS[number]))
        found.append(str(above))
    return found


def manifest(layers: Layers) -> bytes:
    return json.dumps(layers).encode()


@dataclass
class Transfer:
    """A pull under way: it holds a span, and has brought some blobs."""

    layers: Layers
    stack: ExitStack
    span: Span
    brought: list[Digest] = field(default_factory=list)


class Place:
    """A node's content, snapshots and objects, and who works on them."""

    def __init__(self, folder: Path) -> None:
        self.store, self.clock = MemoryStore(), VirtualClock()
        self.driver = NativeSnapshotter(folder / "snapshots", self.clock, Launcher())
        self.content = ContentStore(folder / "content")
        # Of a node only what collection and images work with.
        runtimes = RuntimeTable(folder / "state", (), {})
        apparmor = AppArmor(Launcher(), "model", folder / "state/bundles")
        node: Any = SimpleNamespace(
            snapshotters={"native": self.driver},
            content=self.content,
            runtimes=runtimes,
            apparmor=apparmor,
            boot="boot",
        )
        self.exits = Exits(lambda key: None, "boot")
        remotes = Remotes(TransferSettings(), Launcher(), self.clock, {})
        checks = HealthChecks(lambda task, probe: None, lambda key: None, self.clock)
        hooks = Hooks(lambda task, args, timeout: "", lambda key: None)
        eyes = Eyes(self.store, node, self.exits, checks, hooks)
        self.hands = ImageHands(eyes, {}, remotes, self.clock, lambda key: None, lambda: False)
        self.collector = Collector(eyes, self.clock)

    def close(self) -> None:
        """Let go of everything."""
        self.exits.stop()
        self.driver.close()

    def needed(self) -> Iterator[tuple[set[str], list[str]]]:
        """By the model: blobs and chains of each object that stays."""
        for obj in self.store.list():
            if obj.deleted is None:
                for record in (obj.record, *obj.record.get("keeps", ())):
                    if "numbers" in record:
                        yield set(record["blobs"]), chains(tuple(record["numbers"]))

    def held(self) -> set[str]:
        """The blobs here."""
        return set(map(str, self.content.walk()))

    def snapshots(self) -> set[str]:
        """The snapshots here."""
        return {info.key for info in self.driver.walk()}


class Collecting(RuleBasedStateMachine):
    """Pulls in steps, so that all else comes in between."""

    transfers: Bundle[Transfer] = Bundle("transfers")
    names = st.sampled_from(["a", "b", "c"])

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(prefix="rc-", dir="/tmp")
        self.place = Place(Path(self.folder.name))
        self.open: list[Transfer] = []
        self.roots: dict[str, list[str]] = {}

    @initialize()
    def begin(self) -> None:
        self.collected = False

    def teardown(self) -> None:
        for transfer in self.open:
            transfer.stack.close()
        self.place.close()
        self.folder.cleanup()

    @rule(target=transfers, layers=images)
    def pull(self, layers: Layers) -> Transfer:
        stack = ExitStack()
        span: AbstractContextManager[Span] = self.place.content.span()
        made = Transfer(layers, stack, stack.enter_context(span))
        self.open.append(made)
        return made

    @rule(transfer=transfers)
    def bring(self, transfer: Transfer) -> None:
        """One blob more, if it is still under way."""
        wanted = [manifest(transfer.layers), *(LAYERS[number] for number in transfer.layers)]
        if transfer in self.open and len(transfer.brought) < len(wanted):
            data = wanted[len(transfer.brought)]
            transfer.span.put(Digest.of(data), data, lambda: None)
            transfer.brought.append(Digest.of(data))

    @rule(transfer=consumes(transfers), name=names, committed=st.integers(0, 4))
    def finish(self, transfer: Transfer, name: str, committed: int) -> None:
        """Unpack and remember; with fewer layers committed than there are it was killed in the middle of it."""
        if transfer not in self.open:
            return
        for _ in range(5):
            self.bring(transfer)
        done = chains(transfer.layers)
        for number, chain in enumerate(done):
            if number > committed:
                break
            if chain not in self.place.snapshots():
                key = f"unpack-{chain[7:19]}"
                if key not in self.place.snapshots():
                    self.place.driver.prepare(key, done[number - 1] if number else None)
                self.place.driver.commit(chain, key)
        else:
            self._remember(transfer, name)
        self.end(transfer)

    @rule(transfer=consumes(transfers))
    def killed(self, transfer: Transfer) -> None:
        """Its process is gone; what it brought stays, and half of what it was about to bring."""
        if transfer in self.open:
            (self.place.content.folder / "ingest" / f"sha256-{'0' * 64}").touch()
            self.end(transfer)

    def end(self, transfer: Transfer) -> None:
        transfer.stack.close()
        self.open.remove(transfer)

    def _remember(self, transfer: Transfer, name: str) -> None:
        key = Key(Kind.IMAGE, name)
        found = self.place.store.get(key)
        if found is not None and found.deleted is not None:
            return
        blobs = [str(Digest.of(manifest(transfer.layers))), *(str(Digest.of(LAYERS[n])) for n in transfer.layers)]
        record: dict[str, Any] = {"driver": "native", "chain": chains(transfer.layers)[-1], "blobs": blobs}
        record |= {"numbers": list(transfer.layers)}
        if found is None:
            (found,) = self.place.store.commit([Put(Object(key), 0)])
        modify(self.place.store, key, lambda obj: with_record(obj, record))

    @rule(name=names)
    def delete(self, name: str) -> None:
        """As the image's and its snapshot's controllers do it; `Busy` while a transfer is under way: later."""
        key = Key(Kind.IMAGE, name)
        if (found := self.place.store.get(key)) is None:
            return
        modify(self.place.store, key, lambda obj: replace(obj, deleted=1.0))
        with suppress(Busy):
            if found.record:
                self.place.hands.remove_chain(RemoveChain(key, "native", found.record["chain"]))
            self.place.hands.forget(ForgetImage(key))
            gone = self.place.store.get(key)
            assert gone is not None
            self.place.store.commit([Remove(key, gone.version)])

    @rule(name=names, revision=st.sampled_from(["r1", "r2"]))
    def keep(self, name: str, revision: str) -> None:
        """A revision that one may go back to keeps an image, whatever becomes of its object."""
        image = self.place.store.get(Key(Kind.IMAGE, name))
        if image is None or image.deleted is not None or not image.record:
            return
        kept = [{**keep_of(image.record), "numbers": image.record["numbers"]}]
        key = Key(Kind.SECRET, revision)  # any object may keep
        if self.place.store.get(key) is None:
            self.place.store.commit([Put(Object(key), 0)])
        modify(self.place.store, key, lambda obj: with_record(obj, {"keeps": kept}))

    @rule(revision=st.sampled_from(["r1", "r2"]))
    def forget(self, revision: str) -> None:
        if (found := self.place.store.get(Key(Kind.SECRET, revision))) is not None:
            self.place.store.commit([Remove(found.key, found.version)])

    @rule(name=names, root=st.sampled_from(["x", "y"]))
    def run(self, name: str, root: str) -> None:
        """A container's root on the image."""
        image = self.place.store.get(Key(Kind.IMAGE, name))
        if image is not None and image.deleted is None and image.record and root not in self.roots:
            self.place.driver.prepare(root, image.record["chain"])
            self.roots[root] = chains(tuple(image.record["numbers"]))

    @rule(root=st.sampled_from(["x", "y"]))
    def stop(self, root: str) -> None:
        if self.roots.pop(root, None) is not None:
            self.place.driver.remove(root)

    @rule(dry=st.booleans())
    def collect(self, dry: bool) -> None:
        """Refused while a transfer is under way; else all that is not needed goes, and only that."""
        before = self.place.held(), self.place.snapshots()
        if self.open:
            with pytest.raises(Busy), self.place.content.closed():
                pass
            self.place.collector.by_timetable()
            assert (self.place.held(), self.place.snapshots()) == before
            return
        with self.place.content.closed():
            said = self.place.collector.collect(dry=dry)
        went = {one["digest"] for one in said["blobs"]}, {one["chain"] for one in said["snapshots"]}
        if dry:
            assert (self.place.held(), self.place.snapshots()) == before
        else:
            assert (self.place.held(), self.place.snapshots()) == (before[0] - went[0], before[1] - went[1])
        needed = set[str]().union(*(blobs for blobs, _ in self.place.needed()))
        assert before[0] - went[0] == needed
        chained = {chain for _, line in self.place.needed() for chain in line}
        resting = {chain for line in self.roots.values() for chain in line}
        left = {key for key in before[1] - went[1] if key.startswith("sha256:")}
        assert left == chained | resting

    @invariant()
    def nothing_needed_is_gone(self) -> None:
        held, there = self.place.held(), self.place.snapshots()
        for blobs, line in self.place.needed():
            assert blobs <= held
            assert set(line) <= there
        for transfer in self.open:
            assert set(map(str, transfer.brought)) <= held
        for root, line in self.roots.items():
            assert {root, *line} <= there


Collecting.TestCase.settings = settings(
    max_examples=300,
    stateful_step_count=12,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestCollecting = Collecting.TestCase


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    with made.content.span() as span:
        span.put(Digest.of(b"unknown"), b"unknown", lambda: None)
    yield made
    made.close()


def test_the_timetable_collects_what_nothing_needs(place: Place) -> None:
    place.collector.by_timetable()
    assert place.held() == set()


def test_the_timetable_waits_after_a_loss_of_the_store(place: Place) -> None:
    place.store.set_meta(NOTICE, json.dumps({"at": place.clock.wall(), "aside": "", "message": "lost"}))
    place.collector.by_timetable()
    assert place.held() != set()
    place.clock.advance(GRACE + 1)
    place.collector.by_timetable()
    assert place.held() == set()


def test_the_timetable_waits_while_containers_run_that_no_store_remembers(place: Place) -> None:
    place.store.commit([Put(Object(Key(Kind.CONTAINER, "lost"), manager=ORPHAN), 0)])
    place.collector.by_timetable()
    assert place.held() != set()


def test_a_forgetful_store_lets_an_image_take_along_only_what_is_its_own(place: Place) -> None:
    key = Key(Kind.IMAGE, "mine")
    with place.content.span() as span:
        span.put(Digest.of(b"mine"), b"mine", lambda: None)
    place.store.commit([Put(Object(key, record={"blobs": [str(Digest.of(b"mine"))]}), 0)])
    place.store.commit([Put(Object(Key(Kind.CONTAINER, "lost"), manager=ORPHAN), 0)])
    place.hands.forget(ForgetImage(key))
    assert place.held() == {str(Digest.of(b"unknown"))}


def test_a_snapshot_in_use_is_not_even_named(place: Place) -> None:
    place.driver.prepare("work", None)
    place.driver.commit("sha256:" + "1" * 64, "work")
    place.driver.prepare("root", "sha256:" + "1" * 64)
    with pytest.raises(SnapshotInUse):
        place.driver.remove("sha256:" + "1" * 64)
    with place.content.closed():
        assert place.collector.collect(dry=True)["snapshots"] == []
