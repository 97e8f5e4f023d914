"""Files that the host carries in: secrets, configuration, what a sandbox shares. They lie in memory."""

from __future__ import annotations

import binascii
import os

from core.runtime.vm.guest.asking import Given, Refused


def put(given: Given, top: str) -> None:
    """The call `put`: a file below `top`, or its beginning, or a folder; whole by rename. Raises `Refused`."""
    path = _path(given, top)
    if given.flag("folder"):
        os.makedirs(path, exist_ok=True)
        _owned(path, given)
        return
    data = _data(given, path)
    os.makedirs(os.path.dirname(path), mode=0o755, exist_ok=True)
    fd = os.open(_aside(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        _write(fd, data)
        _owned(fd, given)
    finally:
        os.close(fd)
    _publish(given, path)


def append(given: Given, top: str) -> None:
    """The call `append`: what follows of a file that `put` began. Raises `Refused`, `OSError` where none was."""
    path = _path(given, top)
    data = _data(given, path)
    fd = os.open(_aside(path), os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _write(fd, data)
    finally:
        os.close(fd)
    _publish(given, path)


def _path(given: Given, top: str) -> str:
    path = given.text("path")
    if not path.startswith(f"{top}/") or ".." in path.split("/"):
        raise Refused("invalid", f"{path[:100]!r} is not below {top}")
    if os.path.realpath(path) != path:  # a task that may write there made a link of it
        raise Refused("denied", f"{path} leads elsewhere")
    return path


def _aside(path: str) -> str:
    return f"{path}.new"


def _publish(given: Given, path: str) -> None:
    if not given.flag("more"):
        os.rename(_aside(path), path)


def _data(given: Given, path: str) -> bytes:
    try:
        return binascii.a2b_base64(given.text("data"), strict_mode=True)
    except ValueError as error:
        raise Refused("invalid", f"the data of {path} is not base64") from error


def _owned(path: int | str, given: Given) -> None:
    os.chown(path, given.number("uid"), given.number("gid"))
    os.chmod(path, given.number("mode", 0o7777))


def _write(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]
