"""Reading the configuration: a file and the drop-ins beside it, or nothing, to a checked `Config` with its places.

Rules of this file: nothing below this floor knows of files for it. Every fault of every file at once. What others than
root and we could have written is refused: a configuration names programs that root runs. A link is followed, and what
it leads to is judged. Drop-ins are merged by key in the order of their names: mappings key by key, everything else is
replaced, null takes back what was said before.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field, replace
from pathlib import Path
from typing import Any, Final

from core.errors import Invalid, NotFound, from_os_error
from core.values import dataclass
from reconciler.model.config import Config
from reconciler.model.kinds.checking import check_model
from reconciler.model.problems import Problem, excerpt, quoted, shown
from reconciler.sources.faults import Fault
from reconciler.sources.manifests import MOST_BYTES, read_documents
from reconciler.sources.nodes import Document, Mark, Node

DEFAULT_FILE: Final = Path("/etc/reconciler/config.yaml")
DROP_INS: Final = "conf.d"
"""The folder beside the configuration file."""
SUFFIXES: Final = (".yaml", ".yml")
TOML: Final = ".toml"
MOST_DROP_INS: Final = 100
_IS_MISSING: Final = "is missing"

Keys = tuple[str | int, ...]
Signature = tuple[tuple[str, int, int, int, int], ...]


class BadConfig(Invalid):
    """The configuration cannot be used; `faults` are all that is wrong with it, each with its place."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        super().__init__(f"{faults[0]}{more}", advice="Correct the file; nothing was changed.")
        self.faults = tuple(faults)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration with where it came from. `origins`: `FILE:LINE` by path, for each value that a file gives."""

    config: Config = field(default_factory=Config.model_construct)
    origins: Mapping[Keys, str] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    steps: tuple[str, ...] = ()
    """What became of each key of files of version 1, which were brought to version 2 in memory."""
    beside: Mapping[str, bytes] = field(default_factory=dict)
    """What such files said that version 2 keeps in files of its own, by path; for `staged`."""

    def origin(self, path: Keys) -> str:
        """Which file and line gives the value at `path`; "default" when none does."""
        return self.origins.get(path, "default")


def config_file(given: str | None) -> Path | None:
    """The file in force: the one given, else the default one where it or a drop-in is there and we are root."""
    if given:
        return Path(os.path.abspath(given))
    there = os.geteuid() == 0 and (DEFAULT_FILE.exists() or bool(_drop_ins(DEFAULT_FILE)))
    return DEFAULT_FILE if there else None


@dataclass(frozen=True, slots=True)
class ConfigFiles:
    """The files of the configuration, wherever they are at the moment; `given`: the file that was named, if any."""

    given: str | None
    state: Path

    def load(self) -> Loaded:
        """As `load`, for an engine with that state folder."""
        return staged(load(config_file(self.given)), self.state)

    def signature(self) -> Signature:
        """As `signature`."""
        return signature(config_file(self.given))


def load_config(file: Path | None) -> Config:
    """The configuration of `file` and its drop-ins; None: all defaults. Raises as `load`."""
    return load(file).config


def load(file: Path | None) -> Loaded:
    """The same with its places. Raises `BadConfig` with every fault, `NotFound`, and what reading raises."""
    if file is None:
        return Loaded()
    merging = _Merging()
    for path in _files(file):
        merging.add(path)
    return merging.done()


def staged(loaded: Loaded, state: Path) -> Loaded:
    """The same for an engine: what lies beside files of version 1 is put into `state`, and read from there first."""
    if not loaded.beside:
        return loaded
    from reconciler.older import CERTS, stage  # few nodes need it

    transfer = loaded.config.transfer
    hosts = (str(stage(loaded.beside, state) / CERTS), *transfer.hosts)
    config = loaded.config.model_copy(update={"transfer": transfer.model_copy(update={"hosts": hosts})})
    return replace(loaded, config=config)


def parse_config(data: bytes, name: str) -> Config:
    """The configuration that `data` (YAML, one document) holds; raises `BadConfig` with every fault."""
    merging = _Merging()
    merging.take(data, name)
    return merging.done().config


def signature(file: Path | None) -> Signature:
    """Changes with the files, their names, owners and modes; looks at them without reading. Never raises."""
    return tuple(_signed(path) for path in ([] if file is None else [file, *_drop_ins(file)]))


def _signed(path: Path) -> tuple[str, int, int, int, int]:
    try:
        seen = path.stat()
    except OSError as error:
        return str(path), 0, 0, 0, error.errno or 0
    return str(path), seen.st_ino, seen.st_mtime_ns, seen.st_size, seen.st_ctime_ns


def _files(file: Path) -> list[Path]:
    """The file, where it is there, and its drop-ins. Raises `NotFound`."""
    drop_ins = _drop_ins(file)
    if os.path.lexists(file):
        return [file, *drop_ins]
    if file == DEFAULT_FILE:
        return drop_ins
    raise NotFound(f"the configuration {file} is not there", advice="Correct --config or RECONCILER_CONFIG.")


def _drop_ins(file: Path) -> list[Path]:
    """The drop-ins beside `file`, in the order in which they are merged."""
    folder = file.parent / DROP_INS
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(SUFFIXES) and not name.startswith("."))
    except OSError:
        return []  # there is none, or it is not for us
    return [folder / name for name in names]


def _read(path: Path) -> bytes:
    """The bytes of a file that only root or we can have written; raises `BadConfig`, and what reading raises."""

    def wrong(message: str, advice: str) -> BadConfig:
        return BadConfig([Fault(str(path), 0, 0, "", message, advice)])

    try:
        # Opening a pipe must not hold us up before we see that it is one.
        with open(path, "rb", opener=_without_waiting) as source:
            seen = os.fstat(source.fileno())
            if not stat.S_ISREG(seen.st_mode):
                raise wrong("is not a file", "name a plain file, or a link to one")
            if seen.st_uid not in (0, os.geteuid()):
                raise wrong(f"belongs to user {seen.st_uid}, who could change it", f"chown root {path}")
            if seen.st_mode & stat.S_IWOTH or (seen.st_mode & stat.S_IWGRP and seen.st_gid not in (0, os.getegid())):
                mode = stat.S_IMODE(seen.st_mode)
                raise wrong(f"can be written by others (mode {mode:04o})", f"chmod go-w {path}")
            if len(data := source.read(MOST_BYTES + 1)) > MOST_BYTES:
                raise wrong("is larger than 1 MiB", "split it into several files")
            return data
    except IsADirectoryError:
        raise wrong("is not a file", "name a plain file, or a link to one") from None
    except FileNotFoundError:
        raise wrong("leads nowhere" if path.is_symlink() else "is not there any more", "correct it") from None
    except OSError as error:
        raise from_os_error(error, f"reading {path}") from error


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NONBLOCK)


class _Merging:
    """Files merged one after the other, with all their faults."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._origins: dict[Keys, str] = {}
        self._files: list[Path] = []
        self._faults: list[Fault] = []
        self._steps: list[str] = []
        self._beside: dict[str, bytes] = {}

    def add(self, path: Path) -> None:
        """Read a file and merge it."""
        if len(self._files) > MOST_DROP_INS:
            raise BadConfig([Fault(str(path.parent), 0, 0, "", f"holds more than {MOST_DROP_INS} files", "join them")])
        self._files.append(path)
        try:
            data = _read(path)
        except BadConfig as error:
            self._faults += error.faults
        else:
            self.take(data, str(path))

    def take(self, data: bytes, name: str) -> None:
        """Merge what `data` holds, of whichever version."""
        documents, faults = ([], []) if name.endswith(TOML) else read_documents(data, name)
        if name.endswith(TOML) or (not faults and len(documents) == 1 and _is_older(documents[0].root.value)):
            self._bring(data, name)
        else:
            self._take(documents, faults, name, None)

    def _bring(self, data: bytes, name: str) -> None:
        from reconciler.older import bring  # few nodes need it

        brought = bring(data, name)
        if isinstance(brought, Fault):
            self._faults.append(brought)
            return
        self._steps += brought.steps
        self._beside |= brought.beside
        self._take(*read_documents(brought.text, name), name, brought.lines)

    def _take(self, documents: list[Document], faults: list[Fault], name: str, lines: Mapping[str, int] | None) -> None:
        """Merge what was read. `lines`: where each key was said, if it was said in another way."""
        if len(documents) > 1:
            faults.append(Fault(name, *documents[1].root.mark, "", "a configuration is one document", "join the two"))
        for document in documents[:1]:
            faults += _faults_of(document, name) if not faults else document.faults
            if not faults:
                self._merge(document.root, self._values, (), _Told(name, lines))
        self._faults += faults if lines is None else [_in_the_original(fault, lines) for fault in faults]

    def _merge(self, node: Node, into: dict[str, Any], path: Keys, told: _Told) -> None:
        for key, child in node.items():
            below = (*path, key)
            if isinstance(child.value, dict) and child.value:
                if not isinstance(into.get(str(key)), dict):
                    into[str(key)] = {}
                self._forget(below, inner=False)
                self._merge(child, into[str(key)], below, told)
                continue
            if child.value is None or not (isinstance(child.value, dict) and key in into):
                self._forget(below, inner=True)
                into.pop(str(key), None)
            if child.value is not None and key not in into:
                into[str(key)] = child.value
                self._origins[below] = told.origin(below, child)

    def _forget(self, path: Keys, *, inner: bool) -> None:
        """What an earlier file said at `path`, and below it, counts no more."""
        for known in [one for one in self._origins if one == path or (inner and one[: len(path)] == path)]:
            del self._origins[known]

    def done(self) -> Loaded:
        """The whole; raises `BadConfig`."""
        for problem in check_model(Config, self._values) if not self._faults else ():
            place = self._origins.get(problem.path[:-1], str(self._files[-1]) if self._files else "")
            self._faults.append(Fault(place, 0, 0, shown(problem.path), problem.message, problem.advice))
        if self._faults:
            raise BadConfig(sorted(self._faults))
        config = Config.model_validate(self._values)
        return Loaded(config, self._origins, tuple(self._files), tuple(self._steps), self._beside)


@dataclass(frozen=True, slots=True)
class _Told:
    """Which file says something; `lines`: where, by key, when it said it in the words of version 1."""

    name: str
    lines: Mapping[str, int] | None

    def origin(self, path: Keys, node: Node) -> str:
        """`FILE:LINE`; the file alone for what follows from something else in it."""
        line = node.mark[0] if self.lines is None else self.lines.get(shown(path))
        return self.name if line is None else f"{self.name}:{line}"


def _in_the_original(fault: Fault, lines: Mapping[str, int]) -> Fault:
    """The fault where what it is about was said."""
    return replace(fault, line=lines.get(fault.path, 0), column=1 if fault.path in lines else 0)


def _is_older(value: Any) -> bool:
    """Whether it is of version 1, which it need not say when it has containerd's plugins."""
    if not isinstance(value, dict):
        return False
    version = value.get("version")
    return (isinstance(version, int) and not isinstance(version, bool) and version in (0, 1)) or (
        "version" not in value and "plugins" in value
    )


def _faults_of(document: Document, name: str) -> list[Fault]:
    """All that is wrong with one file. What is missing in it may be in another one."""
    root, faults = document.root, list(document.faults)
    if not isinstance(root.value, dict) or root.value.get("version") is None:
        return [*faults, Fault(name, *root.mark, "", "has no version", "add version: 2")]
    faults += _empty(document, name)
    for problem in _problems(root.value):
        place = root.place(problem.path, at_key=problem.at_key)
        if problem.message != _IS_MISSING and not _stands(place, faults):
            faults.append(Fault(name, *place, shown(problem.path), problem.message, problem.advice))
    return [*faults, *(one for one in _doubts(document, name) if not _stands((one.line, one.column), faults))]


def _stands(place: Mark, faults: list[Fault]) -> bool:
    """Whether there is a fault at that place: one is enough."""
    return any((fault.line, fault.column) == place for fault in faults)


def _problems(value: dict[str, Any]) -> Iterator[Problem]:
    """What is wrong with what is said, and names in it that nobody knows, though they be null."""
    yield from check_model(Config, _said(value))
    yield from (one for one in check_model(Config, value) if one.at_key)


def _empty(document: Document, name: str) -> Iterator[Fault]:
    """Keys without a value. What says null means it."""
    for path, node in _doubtful(document):
        if node.value is None and not node.text:
            advice = "write one; null for the default; or leave the key out"
            yield Fault(name, *node.mark, shown(path), "has no value", advice)


def _doubts(document: Document, name: str) -> Iterator[Fault]:
    """Texts that other readers of YAML take for something else."""
    for path, node in _doubtful(document):
        if node.value is not None:
            message = f"{excerpt(node.text)} means different things to YAML readers"
            advice = f"quote it: {quoted(node.text or '')}"
            yield Fault(name, *node.mark, shown(path), message, advice)


def _doubtful(document: Document) -> Iterator[tuple[Keys, Node]]:
    wanted = {id(node) for node in document.doubtful}
    yield from ((path, node) for path, node in document.root.walk() if id(node) in wanted)


def _said(value: dict[str, Any]) -> dict[str, Any]:
    """`value` without what it takes back."""
    return {key: _said(one) if isinstance(one, dict) else one for key, one in value.items() if one is not None}
