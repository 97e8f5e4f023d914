"""The support bundle: what somebody who helps needs to know of this node, in one small archive without secrets.

Rules of this file: nothing is changed on the node; what cannot be read is noted and left out; every text goes through
the scrubber; each member and the whole are bounded. Logs of workloads are theirs, and come only when asked for.
"""

from __future__ import annotations

import io
import json
import os
import platform
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from core import cgroups, fsio, proc
from core.clock import timestamp
from core.errors import AgentError
from core.process import Launcher, find
from reconciler import __version__
from reconciler.cli.context import Node
from reconciler.cli.events import event_shape
from reconciler.cli.scrubbing import Scrubber, bare, logins_in, secrets_in
from reconciler.model.objects import Object
from reconciler.places import Paths
from reconciler.store.port import ObjectStore

MOST_MEMBER: Final = 1 << 20
MOST_ALL: Final = 24 << 20
MOST_NAMES: Final = 5000
LOG_LINES: Final = "2000"
MOST_LOGS: Final = 40
_CUT: Final = "… cut here: the rest is longer than a bundle may hold …"
_READINGS: Final = ("memory.current", "memory.max", "memory.events", "pids.current", "cpu.stat", "cgroup.events")


class Bundle:
    """Collects members, scrubbed and bounded, and notes what is not among them."""

    def __init__(self, scrubber: Scrubber) -> None:
        self._scrubber = scrubber
        self.members: dict[str, bytes] = {}
        self.notes: list[str] = []

    def add(self, name: str, gather: Callable[[], str], *, tail: bool = False) -> None:
        """Add what `gather` gives; of what is too long the beginning, or with `tail` the end."""
        try:
            text = self._scrubber.text(gather())
        except (AgentError, OSError) as error:
            self.notes.append(self._scrubber.text(f"{name}: left out: {error}"))
            return
        data = text.encode("utf-8", "replace")
        if len(data) > MOST_MEMBER:
            self.notes.append(f"{name}: cut from {len(data)} bytes")
            mark = f"\n{_CUT}\n".encode()
            data = mark + data[-MOST_MEMBER:] if tail else data[:MOST_MEMBER] + mark
        if sum(map(len, self.members.values())) + len(data) > MOST_ALL:
            self.notes.append(f"{name}: left out: the bundle is full")
            return
        self.members[name] = data

    def archive(self, folder: str, now: float) -> bytes:
        """A gzipped tar with everything below `folder`."""
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w:gz") as tar:
            for name, data in self.members.items():
                entry = tarfile.TarInfo(f"{folder}/{name}")
                entry.size, entry.mtime, entry.mode = len(data), int(now), 0o600
                tar.addfile(entry, io.BytesIO(data))
        return out.getvalue()


def write_bundle(node: Node, report: Sequence[str], file: Path | None, *, with_logs: bool) -> Path:
    """Gather all, and write it to `file` (None: a name of its own in this folder), for the owner alone; the path.

    Raises `OSError` when it cannot be written.
    """
    now = node.clock.wall()
    name = f"reconciler-{node.paths.instance}-{timestamp(now)[:19].replace(':', '')}"
    objects, trouble = _objects(node)
    bundle = Bundle(Scrubber(_secrets(node, objects)))
    bundle.notes += trouble
    bundle.add("doctor.txt", lambda: "\n".join(report))
    bundle.add("config.json", lambda: _config(node))
    bundle.add("objects.json", lambda: _json([bare(obj) for obj in objects]))
    bundle.add("events.json", lambda: _json([event_shape(one) for one in _store(node).events()]))
    bundle.add("store.txt", lambda: _store_text(node))
    bundle.add("packages.txt", lambda: "\n".join(_packages()))
    bundle.add("mountinfo.txt", lambda: "\n".join(_mountinfo(node.paths)))
    bundle.add("cgroups.txt", lambda: "\n".join(_groups(node.paths.group)))
    bundle.add("tree.txt", lambda: "\n".join(_tree(node.paths)))
    for ledger in sorted(node.paths.snapshots.glob("*/ledger.db")):
        bundle.add(f"ledger-{ledger.parent.name}.txt", partial(_ledger, ledger))
    bundle.add("agent.log", lambda: _agent_log(node), tail=True)
    for number, crash in enumerate(_crashes()):
        bundle.add(f"crash-{number}.txt", partial(_tail, crash), tail=True)
    for path in _workload_logs(node.paths.logs) if with_logs else ():
        bundle.add(f"logs/{path.name}", partial(_tail, path), tail=True)
    about = _about(node, now, bundle)
    bundle.add("about.json", lambda: json.dumps(about, indent=2))
    path = (file or Path(f"{name}.tar.gz")).absolute()
    fsio.write_atomic(path, bundle.archive(name, now))
    return path


def _objects(node: Node) -> tuple[list[Object], list[str]]:
    try:
        return list(_store(node).list()), []
    except (AgentError, OSError) as error:
        return [], [f"objects.json: empty: {error}"]


def _store(node: Node) -> ObjectStore:
    from core.errors import NotFound

    store = node.store()
    if store is None:
        raise NotFound(f"there is no store at {node.paths.store_file}")
    return store


def _secrets(node: Node, objects: Iterable[Object]) -> Iterator[bytes]:
    """What is known to be secret on this node, wherever it may be told again."""
    yield from secrets_in(objects)
    places = [Path(os.environ.get("DOCKER_CONFIG", "~/.docker")).expanduser() / "config.json"]
    with suppress(AgentError):  # a configuration that cannot be read is told of where it is due
        configured = node.config().transfer.docker_config
        places += [Path(configured)] if configured is not None else []
    for place in places:
        with suppress(AgentError, OSError):  # none there, or not ours to read
            yield from logins_in(fsio.read_bounded(place, MOST_MEMBER).decode("utf-8", "replace"))
    for name, value in os.environ.items():
        if name.startswith("OTEL_") and name.endswith("HEADERS"):
            yield from (part.partition("=")[2].strip().encode() for part in value.split(","))


def _json(shapes: list[dict[str, Any]]) -> str:
    return json.dumps({"items": shapes}, indent=1, ensure_ascii=False, default=str)


def _config(node: Node) -> str:
    config = node.config()
    whole = config.model_dump(mode="json", by_alias=True)
    for runtime in whole["runtimes"].values():
        runtime["options"] = dict.fromkeys(runtime["options"], "***")
    return json.dumps({"file": node.config_file or "", "config": whole}, indent=1)


def _about(node: Node, now: float, bundle: Bundle) -> dict[str, Any]:
    from reconciler.cli.status import engine_of

    paths = node.paths
    return {
        "bundle": 1,
        "reconciler": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "madeAt": timestamp(now),
        "instance": paths.instance,
        "root": str(paths.root),
        "state": str(paths.state),
        "bootId": proc.boot_id(),
        "uid": os.geteuid(),
        "mountNamespace": _link("/proc/self/ns/mnt"),
        "engine": engine_of(node),
        "variables": sorted(name for name in os.environ if name.startswith(("RECONCILER_", "OTEL_"))),
        "members": {name: len(data) for name, data in bundle.members.items()},
        "notes": bundle.notes,
    }


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError as error:
        return str(error.strerror)


def _store_text(node: Node) -> str:
    files = sorted(node.paths.root.glob("store.db*"))
    lines = [f"{path.name} {path.stat().st_size} bytes" for path in files]
    return "\n".join([*lines, f"version {_store(node).version()}"])


def _packages() -> Iterator[str]:
    for name in sorted({str(one.metadata["Name"]) for one in metadata.distributions()}):
        yield f"{name} {metadata.version(name)}"


def _mountinfo(paths: Paths) -> Iterator[str]:
    """Our mounts, and those on which our folders lie."""
    places = (os.path.realpath(paths.root), os.path.realpath(paths.state))
    for line in Path("/proc/self/mountinfo").read_text("utf-8", "replace").splitlines():
        target = line.split(" ")[4]
        if any(target.startswith(f"{place}/") or f"{place}/".startswith(f"{target.rstrip('/')}/") for place in places):
            yield line


def _groups(group: str) -> Iterator[str]:
    for hierarchy in cgroups.hierarchies().all():
        top = hierarchy / group.lstrip("/")
        for folder, _, _ in os.walk(top):
            yield f"{folder}: processes {cgroups.members(Path(folder))}"
            for name in _READINGS:
                with suppress(OSError):  # this controller has none
                    text = (Path(folder) / name).read_text()
                    yield f"  {name}: {' '.join(text.split())}"


def _tree(paths: Paths) -> Iterator[str]:
    """Names, sizes and owners below root and state; of the contents of snapshots and volumes nothing."""
    left = MOST_NAMES
    for top in (paths.root, paths.state):
        for folder, folders, files in os.walk(top):
            depth = len(Path(folder).relative_to(top).parts)
            within = Path(folder).relative_to(top).parts[:1]
            if depth >= (2 if within in (("snapshots",), ("volumes",), ("attempts",)) else 6):
                folders.clear()
            for name in sorted([*folders, *files]):
                left -= 1
                if left < 0:
                    yield _CUT
                    return
                with suppress(OSError):  # gone meanwhile
                    seen = os.lstat(os.path.join(folder, name))
                    yield f"{seen.st_mode:07o} {seen.st_uid}:{seen.st_gid} {seen.st_size:>12} {folder}/{name}"


def _ledger(path: Path) -> str:
    from core.snapshots.ledger import Ledger

    ledger = Ledger(path)
    try:
        infos = ((line.id, line.info) for line in ledger.lines())
        return "\n".join(f"{number} {info.kind.value} {info.key} on {info.parent or '-'}" for number, info in infos)
    finally:
        ledger.close()


def _agent_log(node: Node) -> str:
    """The end of what the agent wrote: where its stderr goes, if that is a file, else from the journal."""
    from reconciler.engine.lock import Holder

    with suppress(OSError):  # no agent runs, or it is not ours to look at
        holder = Holder.parse((node.paths.state / "engine.lock").read_text("utf-8", "replace"))
        if holder is not None and holder.process.alive(proc.boot_id()):
            path = Path(f"/proc/{holder.process.pid}/fd/2")
            if path.resolve().is_file():
                return _tail(path)
    journal = [find("journalctl", "systemd"), "--unit", "reconciler*", "--lines", LOG_LINES, "--no-pager"]
    return Launcher().run(journal, timeout=20.0, limit=MOST_MEMBER).text()


def _tail(path: Path) -> str:
    with path.open("rb") as source:
        source.seek(max(0, os.fstat(source.fileno()).st_size - MOST_MEMBER))
        return source.read(MOST_MEMBER).decode("utf-8", "replace")


def _crashes() -> list[Path]:
    """The newest reports of faults of the program, of this user."""
    import tempfile

    found = Path(tempfile.gettempdir()).glob("reconciler-crash-*.txt")
    ours = [path for path in found if path.is_file() and path.stat().st_uid == os.geteuid()]
    return sorted(ours, key=lambda path: path.stat().st_mtime, reverse=True)[:3]


def _workload_logs(logs: Path) -> list[Path]:
    found = sorted(logs.glob("*/*.log"), key=lambda path: path.stat().st_mtime, reverse=True)
    return found[:MOST_LOGS]
