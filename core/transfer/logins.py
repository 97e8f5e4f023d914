"""Logins as docker keeps them: `config.json` (podman's `auth.json`, `.dockerconfigjson`) and its helper programs.

Rules of this file: a login is for the host it is kept under. A helper is a program `docker-credential-<name>` on a
fixed PATH, run without a shell, for 30 s at most, and only for a file of the node's own: a Secret names no programs.
Nothing secret is in an error.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Any, Final

from core.errors import Failed, Invalid, MissingTool, NotFound, from_os_error
from core.fsio import read_bounded
from core.process import CLEAN_ENV, Launcher
from core.transfer.auth import Credentials
from core.values import dataclass

_MOST_BYTES: Final = 1 << 20
_HELPER_SECONDS: Final = 30.0
_HELPER_BYTES: Final = 64 << 10
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_HUB: Final = "docker.io"
_HUB_KEY: Final = "https://index.docker.io/v1/"
_HUB_HOSTS: Final = ("index.docker.io", "registry-1.docker.io", "docker.io")
_BY_TOKEN: Final = "<token>"
_UNKNOWN: Final = "credentials not found"


@dataclass(frozen=True, slots=True)
class Logins:
    """What a file of docker's holds, by host, or by host and the beginning of a repository as podman has it."""

    kept: Mapping[str, Credentials] = field(default_factory=dict, repr=False)
    helpers: Mapping[str, str] = field(default_factory=dict)
    store: str = ""

    def find(self, host: str, repository: str, launcher: Launcher | None) -> Credentials | None:
        """The login for a repository at `host` (`docker.io` for the hub); None: none is kept.

        With a `launcher` helpers are asked too. Raises `MissingTool`, `Failed`, `TimedOut`.
        """
        helper = self.helpers.get(host, "")
        if helper and launcher is not None:
            return ask_helper(helper, host, launcher)
        parts = [host, *repository.split("/")] if repository else [host]
        names = ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]
        found = next((self.kept[name] for name in names if name in self.kept), None)
        if found is None and self.store and launcher is not None:
            return ask_helper(self.store, host, launcher)
        return found


def read_logins(file: Path) -> Logins:
    """The logins in a file of the node's; raises `NotFound`, `Invalid`, `Denied`."""
    try:
        return parse_logins(read_bounded(file, _MOST_BYTES), str(file))
    except FileNotFoundError:
        raise NotFound(f"the file of logins {file} is not there", advice="Correct transfer.dockerConfig.") from None
    except OSError as error:
        raise from_os_error(error, f"reading {file}") from error


def parse_logins(data: bytes, name: str) -> Logins:
    """Read docker's `config.json`; `name` is the file's, for people. Raises `Invalid`."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise _bad(name, "is not the JSON of docker's config.json")
    kept: dict[str, Credentials] = {}
    for key, entry in _table(document, "auths", name).items():
        found = _entry(entry, f"{name}: auths of {key[:100]!r}")
        if found is not None:
            kept[_place(key)] = found
    helpers = {_place(key): _helper(value, name) for key, value in _table(document, "credHelpers", name).items()}
    store = document.get("credsStore") or ""
    return Logins(kept, helpers, _helper(store, name) if store else "")


def _table(document: Mapping[str, Any], key: str, name: str) -> dict[str, Any]:
    value = document.get(key)
    value = {} if value is None else value
    if not isinstance(value, dict):
        raise _bad(name, f"has no table under {key}")
    return value


def _place(key: str) -> str:
    """The host that a key means, with what follows it: `https://index.docker.io/v1/` is `docker.io`."""
    plain = re.sub(r"^https?://", "", key.strip()).rstrip("/")
    plain = re.sub(r"/v[12]$", "", plain)
    host, slash, rest = plain.partition("/")
    host = host.lower()
    return f"{_HUB if host in _HUB_HOSTS else host}{slash}{rest}"


def _helper(value: object, name: str) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise _bad(name, f"names a credential helper {str(value)[:40]!r}, which is no name of a program")
    return value


def _entry(entry: object, where: str) -> Credentials | None:
    """One login; None when the entry is empty (a helper keeps it)."""
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise _bad(where, "is no login")
    if entry.get("identitytoken"):
        return Credentials("", "", entry["identitytoken"])
    if entry.get("auth"):
        try:
            user, colon, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError):
            raise _bad(where, "has an auth that is not user:password in base64") from None
        if not colon:
            raise _bad(where, "has an auth that is not user:password in base64")
        return Credentials(user, password.rstrip("\0"))
    if entry.get("username"):
        return Credentials(entry["username"], entry.get("password", ""))
    return None


def ask_helper(name: str, host: str, launcher: Launcher) -> Credentials | None:
    """What `docker-credential-<name> get` says of `host`; None when it keeps nothing for it (docker's protocol).

    Raises `MissingTool`, `TimedOut`, `Failed`.
    """
    program = f"docker-credential-{name}"
    path = shutil.which(program, path=CLEAN_ENV["PATH"])
    if path is None:
        raise MissingTool(program, program)
    key = _HUB_KEY if host == _HUB else host
    result = launcher.run([path, "get"], stdin=key.encode(), timeout=_HELPER_SECONDS, limit=_HELPER_BYTES)
    if result.code != 0:
        if _UNKNOWN in result.text().lower():
            return None
        raise Failed(f"{program} gives no login for {host}: it ended with code {result.code}")
    try:
        reply = json.loads(result.stdout)
        user, secret = reply["Username"], reply["Secret"]
    except (ValueError, KeyError, TypeError, RecursionError):
        user = secret = None
    if not isinstance(user, str) or not isinstance(secret, str):
        raise Failed(f"{program} gives no login for {host}: its answer is not docker's JSON")
    return Credentials("", "", secret) if user == _BY_TOKEN else Credentials(user, secret)


def _bad(name: str, what: str) -> Invalid:
    return Invalid(f"{name} {what}", advice="Write it as docker login does.")
