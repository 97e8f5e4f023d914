"""A checkpoint as a folder: what a task had in memory, what it wrote into its root, and what both belong to.

    about.json   what it is of, and the size and sha256 of every other file
    state/       what the runtime wrote: its own files, all in this one folder
    layer.tar    what was changed in the root (OCI image-spec, layer.md)

Rules of this file: it holds every secret that memory held, so folders are 0700 and files 0600; it is sealed, synced,
when all of it is there, and gets its name by rename. From outside it is believed only when nobody but ourselves could
have written it, since what is in `state` decides what a runtime makes; it is copied in, name by name, no link followed,
each file held to its size and digest on the way, and only the copy is ever used.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import field, fields, replace
from pathlib import Path
from typing import Any, Final, Self

from core import fsio, syscalls
from core.digest import Digest
from core.errors import Corrupt, Denied, Invalid, NoSpace, NotFound, OverLimit, from_os_error
from core.values import dataclass

FORMAT: Final = 1
ABOUT: Final = "about.json"
STATE: Final = "state"
LAYER: Final = "layer.tar"
MOST_FILES: Final = 100_000
_MOST_ABOUT: Final = 32 << 20
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_STEP: Final = 1 << 20
_AGAIN: Final = "Take another checkpoint."


@dataclass(frozen=True, slots=True)
class Piece:
    """One file: its size in bytes and digest."""

    size: int
    digest: Digest

    def to_json(self) -> dict[str, Any]:
        """A form for `about.json`."""
        return {"size": self.size, "digest": str(self.digest)}

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """The inverse of `to_json`; raises `Invalid`."""
        if not isinstance(data, dict) or not isinstance(data.get("size"), int) or not 0 <= data["size"] < 1 << 50:
            raise Invalid("a file without a size")
        return cls(data["size"], Digest.parse(data.get("digest")))


@dataclass(frozen=True, slots=True)
class About:
    """What a checkpoint is of. `state` maps the names of the runtime's files to what they are."""

    container: str
    image: str
    """The image's digest."""
    hash: str
    """Eight hex digits over all that replaces the container when it changes."""
    spec: Mapping[str, Any]
    """What the hash is made of, to tell people what differs; values of secrets are not in it."""
    runtime: Mapping[str, Any]
    """How the runtime is driven (see `RuntimeSpec`), with the `version` of its program."""
    at: float
    """Seconds since 1970."""
    layer: Piece
    state: Mapping[str, Piece] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The content of `about.json`."""
        plain = {one.name: getattr(self, one.name) for one in fields(self)}
        state = {name: piece.to_json() for name, piece in self.state.items()}
        return {"format": FORMAT, **plain, "layer": self.layer.to_json(), "state": state}

    @classmethod
    def from_json(cls, data: Any) -> Self:
        """The inverse of `to_json`; raises `Invalid` for whatever could not have come from it."""
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            version = data.get("format") if isinstance(data, dict) else None
            raise Invalid(f"it is no checkpoint that this version knows (format {str(version)[:20]!r})")
        kinds = {"container": str, "image": str, "hash": str, "spec": dict, "runtime": dict, "at": int | float}
        for name, kind in {**kinds, "state": dict}.items():
            if not isinstance(data.get(name), kind):
                raise Invalid(f"{ABOUT} has no {name}")
        if len(data["state"]) > MOST_FILES:
            raise OverLimit(f"{ABOUT} names more than {MOST_FILES} files")
        for name in data["state"]:
            if not _NAME.fullmatch(name):
                raise Invalid(f"{ABOUT} names {name[:100]!r}, which is no plain name of a file")
        state = {name: Piece.from_json(piece) for name, piece in data["state"].items()}
        return cls(**{name: data[name] for name in kinds}, layer=Piece.from_json(data.get("layer")), state=state)


# Making one.


@contextlib.contextmanager
def making(folder: Path) -> Iterator[Path]:
    """A staging folder beside `folder`, with an empty `state` in it, for the block to fill, `seal` and `publish`.

    Raises `Invalid` where something of that name is there already, `NotFound` where its parent is not.
    """
    if os.path.lexists(folder):
        raise Invalid(f"{folder} is there already", advice="Name a folder that is to be made.")
    if not folder.parent.is_dir():
        raise NotFound(f"{folder.parent} is no folder", advice="Make it, or name another.")
    for left in sorted(folder.parent.glob(f"{fsio.STAGING}checkpoint-*")):  # of a command that was killed
        fsio.sweep(left)
    try:
        with fsio.staging(folder.parent, "checkpoint") as work:
            (work / STATE).mkdir(mode=0o700)
            yield work
    except OSError as error:
        raise from_os_error(error, f"writing {folder}") from error


def seal(work: Path, about: About) -> About:
    """Write down what `state` came to, and have all of it on disk; `about.state` is filled in. Raises `Invalid`."""
    state: dict[str, Piece] = {}
    for entry in sorted(os.scandir(work / STATE), key=lambda one: one.name):
        if not entry.is_file(follow_symlinks=False) or not _NAME.fullmatch(entry.name):
            raise Invalid(f"the runtime wrote {entry.name[:100]!r}, which is no plain file")
        os.chmod(entry.path, 0o600)
        state[entry.name] = _measured(Path(entry.path))
    whole = replace(about, state=state)
    _write(work, whole)
    return whole


def _write(work: Path, about: About) -> None:
    fsio.write_atomic(work / ABOUT, json.dumps(about.to_json(), indent=1).encode(), durable=False)
    fd = os.open(work, _FOLDER)
    try:
        syscalls.syncfs(fd)
    finally:
        os.close(fd)


def _measured(path: Path) -> Piece:
    hasher, size = hashlib.sha256(), 0
    with open(path, "rb", buffering=0) as source:
        while data := source.read(_STEP):
            hasher.update(data)
            size += len(data)
    return Piece(size, Digest("sha256", hasher.hexdigest()))


# Taking one in.


def read_about(folder: Path) -> About:
    """What one from outside says it is. Raises `NotFound`, `Denied` (others may have written it), `Invalid`."""
    with _own(folder) as fd:
        return _about(fd, folder)


def take_in(folder: Path, final: Path) -> About:
    """Copy a checkpoint from outside to the new folder `final`, which appears whole and verified.

    Raises as `read_about`, and `Corrupt` (a file is not what `about.json` says), `NoSpace`.
    """
    try:
        with _own(folder) as fd, fsio.staging(final.parent, final.name) as work:
            about = _about(fd, folder)
            _check_room(about, final.parent)
            (work / STATE).mkdir(mode=0o700)
            _copy(fd, LAYER, work / LAYER, about.layer)
            with _within(fd, STATE) as inner:
                for name, piece in about.state.items():
                    _copy(inner, name, work / STATE / name, piece)
            _write(work, about)
            fsio.publish(work, final)
            return about
    except OSError as error:
        raise from_os_error(error, f"reading checkpoint {folder}") from error


def held(folder: Path) -> About:
    """What a checkpoint is that was taken in; raises `NotFound` when it is gone, `Invalid`."""
    data = fsio.read_if_there(folder / ABOUT, _MOST_ABOUT)
    if data is None:
        raise NotFound(f"checkpoint {folder.name} is not here any more", advice="Ask for it again.")
    return _parsed(data, folder)


@contextlib.contextmanager
def _own(folder: Path) -> Iterator[int]:
    try:
        fd = os.open(folder, _FOLDER)
    except OSError as error:
        if os.path.islink(folder):
            raise Denied(f"{folder} is a link", advice="Name the folder itself.") from None
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            raise NotFound(f"there is no checkpoint at {folder}") from None
        raise from_os_error(error, f"reading checkpoint {folder}") from None
    try:
        _check_owner(os.fstat(fd), str(folder))
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def _within(folder: int, name: str) -> Iterator[int]:
    try:
        fd = os.open(name, _FOLDER, dir_fd=folder)
    except OSError:
        raise Corrupt(f"the checkpoint has no folder {name}", advice=_AGAIN) from None
    try:
        _check_owner(os.fstat(fd), name)
        yield fd
    finally:
        os.close(fd)


def _check_owner(seen: os.stat_result, what: str) -> None:
    """What is in it becomes processes: only who is trusted with that may have written it."""
    if seen.st_uid != os.geteuid() or seen.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise Denied(
            f"{what} could have been written by another user",
            advice="A checkpoint is trusted like a program run as root: see where it is from, then chown and chmod it.",
        )


def _about(fd: int, folder: Path) -> About:
    with _opened(fd, ABOUT) as source:
        if os.fstat(source).st_size > _MOST_ABOUT:
            raise OverLimit(f"{ABOUT} of {folder} is larger than {_MOST_ABOUT} bytes")
        with open(source, "rb", closefd=False) as data:
            return _parsed(data.read(_MOST_ABOUT), folder)


def _parsed(data: bytes, folder: Path) -> About:
    try:
        return About.from_json(json.loads(data))
    except (ValueError, RecursionError):
        raise Invalid(f"{ABOUT} of {folder} is no JSON", advice=_AGAIN) from None
    except (Invalid, OverLimit) as error:
        raise type(error)(f"{folder}: {error.message}", advice=_AGAIN) from None


@contextlib.contextmanager
def _opened(folder: int, name: str) -> Iterator[int]:
    try:
        fd = os.open(name, _FILE, dir_fd=folder)
    except OSError:
        raise Corrupt(f"the checkpoint has no file {name}", advice=_AGAIN) from None
    try:
        seen = os.fstat(fd)
        if not stat.S_ISREG(seen.st_mode):
            raise Invalid(f"{name} of the checkpoint is no file")
        _check_owner(seen, name)
        yield fd
    finally:
        os.close(fd)


def _check_room(about: About, folder: Path) -> None:
    wanted = about.layer.size + sum(piece.size for piece in about.state.values())
    if wanted > fsio.free_bytes(folder):
        raise NoSpace(f"the checkpoint takes {wanted} bytes below {folder}; there are {fsio.free_bytes(folder)}")


def _copy(folder: int, name: str, target: Path, wanted: Piece) -> None:
    hasher, left = hashlib.sha256(), wanted.size
    with _opened(folder, name) as source, open(os.open(target, _NEW, 0o600), "wb", buffering=0) as out:
        if os.fstat(source).st_size != wanted.size:
            raise Corrupt(f"{name} has {os.fstat(source).st_size} bytes, not {wanted.size}", advice=_AGAIN)
        while left and (data := os.read(source, min(_STEP, left))):
            hasher.update(data)
            view = memoryview(data)
            while view:
                view = view[out.write(view) :]
            left -= len(data)
    if hasher.hexdigest() != wanted.digest.hex:
        raise Corrupt(f"{name} of the checkpoint is not what was written", advice=_AGAIN)
