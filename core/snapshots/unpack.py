"""From layers to snapshots: an image's missing layers are applied side by side and committed together.

Rules of this file. A layer is first applied alone, in an empty folder, while others are; one that needs to see its
parents says so and is done again on top of them, once they are there. Drivers that copy go in order. Nothing has a
line in the ledger before all of it is on disk: one syncfs for the image, the renames, their folder, then all lines in
one transaction. Two unpackings of one chain meet at a lock named by the first layer that is missing; the second waits
in `begin` and finds the first one's work.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from core import fsio, syscalls, telemetry
from core.digest import Digest, chain_id
from core.errors import Corrupt, Failed, Invalid, OverLimit, from_os_error
from core.layers import Budgets, Compression
from core.process import Launcher
from core.snapshots.driver import FILES, WORK, FolderSnapshotter, inherit_root
from core.snapshots.job import Done, Fault, Job, Redo
from core.snapshots.mending import write_note
from core.snapshots.modules import ModuleUnpack
from core.snapshots.pool import Worker
from core.snapshots.ports import SnapshotInfo, SnapshotKind
from core.snapshots.rooted import Beneath
from core.values import dataclass

_MAX_LAYERS: Final = 512


@dataclass(frozen=True, slots=True)
class Chain:
    """What is to be unpacked: uncompressed digests, chain ids and compressed sizes, base first."""

    diff_ids: tuple[Digest, ...]
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    budgets: Budgets

    @classmethod
    def of(cls, diff_ids: Sequence[Digest], sizes: Sequence[int], budgets: Budgets) -> Chain:
        """Raises `Invalid` when there is no layer, too many, or the two lists differ in length."""
        if not diff_ids or len(diff_ids) != len(sizes) or len(diff_ids) > _MAX_LAYERS:
            raise Invalid(f"an image of {len(diff_ids)} diff ids and {len(sizes)} layers cannot be unpacked")
        names: list[str] = []
        above: Digest | None = None
        for diff_id in diff_ids:
            above = chain_id(above, diff_id)
            names.append(str(above))
        return cls(tuple(diff_ids), tuple(names), tuple(sizes), budgets)


class LayerUnpacker:
    """Makes the snapshots of images with one driver and at most `workers` worker processes for each image."""

    def __init__(self, driver: FolderSnapshotter, launcher: Launcher, workers: int = 2) -> None:
        self._driver = driver
        self._launcher = launcher
        self._workers = workers

    def begin(self, diff_ids: Sequence[Digest], sizes: Sequence[int], budgets: Budgets) -> ImageUnpack:
        """Start on an image; waits while another unpacking makes the first layer that is missing.

        The caller ends it with `finish` or `abort`. Raises `Invalid`, `NoSpace`.
        """
        chain = Chain.of(diff_ids, sizes, budgets)
        lock: fsio.Lock | None = None
        while True:
            held = self._driver.ledger.find(chain.names)
            first = next((i for i, name in enumerate(chain.names) if name not in held), len(chain.names))
            path = self._lock_path(chain.names[first]) if first < len(chain.names) else None
            if lock is not None and lock.path == path:
                break
            if lock is not None:
                lock.release()
            if path is None:
                lock = None
                break
            lock = fsio.Lock(path)
            lock.acquire()
        below = [held[name] for name in chain.names[:first]]
        count = min(self._workers, max(1, len(chain.names) - first))
        try:
            return ImageUnpack(self._driver, chain, below, lock, [Worker(self._launcher) for _ in range(count)])
        except BaseException:
            if lock is not None:
                lock.release()
            raise

    def module(self, name: Digest, path: str) -> ModuleUnpack:
        """Start on an image that is one file, `path`, under the chain id `name`; waits as `begin` does."""
        return ModuleUnpack(self._driver, str(name), path, self._lock_path(str(name)))

    def _lock_path(self, name: str) -> Path:
        # 256 names for ever: a lock file that is removed is a lock that two can hold.
        return self._driver.locks / name.partition(":")[2][:2]


class ImageUnpack:
    """One image being unpacked. `ready` and `applied` may be called from any thread, `finish` and `abort` from one."""

    def __init__(
        self,
        driver: FolderSnapshotter,
        chain: Chain,
        below: Sequence[int],
        lock: fsio.Lock | None,
        workers: Sequence[Worker],
    ) -> None:
        self._driver = driver
        self._chain = chain
        self._below = list(below)
        self._lock = lock
        self._staged = dict(enumerate(driver.stage(len(chain.names) - len(below)), len(below)))
        self._inodes, self._scarce = _inode_allowance(driver.root, chain.budgets)
        self._blobs: dict[int, tuple[Path, Compression]] = {}
        self._done: dict[int, Done] = {}
        self._redo: dict[int, str] = {}
        self._next = len(below)
        self._above = telemetry.current()
        self._stopped = False
        self._workers = list(workers)
        self._idle: SimpleQueue[Worker] = SimpleQueue()
        self._side_by_side = ThreadPoolExecutor(len(workers), "unpack")
        self._in_order = ThreadPoolExecutor(1, "unpack-in-order")
        self._tasks: deque[Future[None]] = deque()
        self._root_fd = driver.open_root()
        try:
            for worker in workers if self._staged else ():
                worker.start()
                self._idle.put(worker)
        except BaseException:
            self.abort()
            raise

    def missing(self) -> Sequence[int]:
        """Indexes of the layers that are needed."""
        return tuple(self._staged)

    def ready(self, index: int, blob: Path, compression: Compression) -> None:
        """Layer `index` lies verified at `blob`: begin to apply it; returns at once. Said twice it counts once."""
        if index not in self._staged or index in self._blobs:
            return
        self._blobs[index] = (blob, compression)
        if self._driver.in_order:
            self._tasks.append(self._in_order.submit(self._advance))
        else:
            self._tasks.append(self._side_by_side.submit(self._try, index))

    def applied(self) -> int:
        """How many of the image's layers are there, committed earlier or applied now."""
        return len(self._below) + len(self._done)

    def finish(self) -> str:
        """Wait for all, make durable, commit; returns the top chain id. Raises the first fault, and leaves nothing."""
        try:
            while self._tasks:
                self._tasks.popleft().result()
            self._check()
            self._commit()
        except OSError as error:
            raise from_os_error(error, "unpacking an image") from error
        finally:
            self.abort()
        return self._chain.names[-1]

    def abort(self) -> None:
        """Stop, and remove what is not committed; harmless when it is over already."""
        self._stopped = True
        for worker in self._workers:
            worker.kill()
        for executor in (self._side_by_side, self._in_order):
            executor.shutdown(wait=True, cancel_futures=True)
        for worker in self._workers:
            worker.close()
        while self._staged:
            self._driver.discard(self._staged.popitem()[1])
        if self._root_fd >= 0:
            os.close(self._root_fd)
            self._root_fd = -1
        if self._lock is not None:
            self._lock.release()

    def _try(self, index: int) -> None:
        self._apply(index, Beneath.HIDDEN if index else Beneath.NOTHING, ())
        if not self._stopped:
            self._tasks.append(self._in_order.submit(self._advance))

    def _advance(self) -> None:
        # Runs in one thread only: layers whose parents are all there are finished, one after the other.
        while self._next < len(self._chain.names) and not self._stopped:
            index = self._next
            below = self._files(index - 1) if index else None
            if index not in self._done:
                if index not in self._redo and not (self._driver.in_order and index in self._blobs):
                    return
                self._on_top(index, below)
            if below is not None and not self._done[index].named_root:
                inherit_root(below, self._staged[index].files)
            self._next += 1

    def _on_top(self, index: int, below: Path | None) -> None:
        lower: tuple[str, ...] = ()
        if below is not None:
            inherit_root(below, self._staged[index].files)
            parents = [os.path.relpath(self._files(i), self._driver.root) for i in range(index - 1, -1, -1)]
            lower = self._driver.settle(self._staged[index], parents)
        self._apply(index, Beneath.VISIBLE if index else Beneath.NOTHING, lower)

    def _apply(self, index: int, beneath: Beneath, lower: tuple[str, ...]) -> None:
        if self._stopped:
            return
        worker = self._idle.get()
        try:
            with telemetry.span("image.unpack_layer", parent=self._above, layer=str(self._chain.diff_ids[index])):
                answer = worker.do(self._job(index, beneath, lower))
        finally:
            self._idle.put(worker)
        match answer:
            case Done():
                self._verify(index, answer)
                self._done[index] = answer
            case Redo(why):
                self._redo[index] = why
            case Fault():
                self._stopped = True
                raise answer.error()

    def _job(self, index: int, beneath: Beneath, lower: tuple[str, ...]) -> Job:
        blob, compression = self._blobs[index]
        budgets = self._chain.budgets
        folder = self._staged[index].path.name
        return Job(
            blob=os.fspath(blob.absolute()),
            compression=compression,
            algorithm=self._chain.diff_ids[index].algorithm,
            beneath=beneath,
            target=f"{folder}/{FILES}",
            max_bytes=budgets.bytes_for(self._chain.sizes[index]),
            max_inodes=self._inodes,
            scarce=self._scarce,
            seconds=budgets.seconds,
            prefix=os.fspath(self._driver.root),
            lower=lower,
            work=f"{folder}/{WORK}",
        )

    def _verify(self, index: int, done: Done) -> None:
        want = self._chain.diff_ids[index]
        if done.hex != want.hex:
            self._stopped = True
            raise Corrupt(
                f"layer {index} unpacks to {want.algorithm}:{done.hex}, the image's configuration says {want}",
                advice="The image is put together wrongly; build or push it again.",
            )

    def _files(self, index: int) -> Path:
        if index < len(self._below):
            return self._driver.root / str(self._below[index]) / FILES
        return self._staged[index].files

    def _check(self) -> None:
        absent = [index for index in self._staged if index not in self._done]
        if absent:
            raise Failed(f"layers {absent} were never handed in, or their unpacking was stopped")
        total = sum(done.inodes for done in self._done.values())
        if total > self._inodes:
            raise OverLimit(f"the image holds {total} files; {self._inodes} are allowed")

    def _commit(self) -> None:
        if not self._staged:
            return
        now = self._driver.clock.wall()
        names = (None, *self._chain.names)
        lines: list[tuple[int, SnapshotInfo]] = []
        for index, staged in sorted(self._staged.items()):
            fsio.remove_tree(staged.path / WORK)
            info = SnapshotInfo(self._chain.names[index], names[index], SnapshotKind.COMMITTED, now)
            write_note(staged.path, info)
            lines.append((staged.number, info))
        syscalls.syncfs(self._root_fd)
        for staged in self._staged.values():
            self._driver.publish(staged)
        fsio.fsync_dir(self._driver.root)
        self._driver.ledger.add_committed(lines)
        while self._staged:
            self._staged.popitem()[1].release()


def _inode_allowance(root: Path, budgets: Budgets) -> tuple[int, bool]:
    seen = os.statvfs(root)
    left = seen.f_favail - seen.f_files // 100 if seen.f_files else budgets.inodes
    return (max(0, left), True) if left < budgets.inodes else (budgets.inodes, False)
