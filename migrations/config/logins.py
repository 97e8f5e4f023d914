"""Logins as the CRI plugin knew them (`registry.auths`, `registry.configs.HOST.auth`) to Secrets.

Rules of this file: a password is never in a document, a report or an error; it goes into a file of its own.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any, Final

from migrations.config.tree import Path
from migrations.config.work import Outcome, Work
from migrations.config.yaml_writing import yaml_scalar

LOGIN_KEYS: Final = ("username", "password", "auth", "identitytoken")
_FOR_CONTAINERD: Final = (
    "containerd 2 takes logins from the kubelet or its client, not from here; it is kept in that file. "
    "Give it to them, or put it back by hand while this node stays on containerd 1"
)
_FOR_US: Final = "apply that Secret, and name it in spec.credentials of the Images of this registry"


def save_logins(work: Work, registry: Path) -> None:
    """Move logins of `registry.auths` and `registry.configs.HOST.auth` into files under `secrets/`."""
    for where in [(*registry, "auths", name) for name in work.names(*registry, "auths")]:
        _save(work, where, host_of(where[-1]))
    for name in work.names(*registry, "configs"):
        if work.get(*registry, "configs", name, "auth") is not None:
            _save(work, (*registry, "configs", name, "auth"), host_of(name))


def host_of(name: str) -> str:
    """The host of a key that may be a URL."""
    return name.split("://", 1)[-1].split("/", 1)[0].rpartition("@")[2]


def _save(work: Work, where: Path, host: str) -> None:
    node = work.get(*where)
    if node is None or node.table is None:
        return
    given = {key: work.value(*where, key) for key in LOGIN_KEYS}
    login = {key: value for key, value in given.items() if value}
    if not login:
        work.drop(where, "holds no login", Outcome.DEFAULT)
        return
    name = _free_name(work, host)
    file = f"secrets/{name}.yaml"
    if file in work.files and work.files[file] != _secret(name, host, login):
        work.drop(where, f"{host} has a login already, which wins", Outcome.INERT)
        return
    work.files[file] = _secret(name, host, login)
    work.private.add(file)
    outcome, why = (Outcome.TRANSLATED, _FOR_US) if work.settings.ours else (Outcome.DROPPED, _FOR_CONTAINERD)
    work.drop(where, why, outcome, file)


def secret_name(host: str) -> str:
    """The name of the Secret with a host's login: what a name may hold, 60 characters at most."""
    return "registry-" + (re.sub(r"[^a-z0-9.]+", "-", host.lower())[:51].strip("-.") or "default")


def _free_name(work: Work, host: str) -> str:
    """The name, with a number where another host's name comes to the same."""
    name = secret_name(host)
    for one in (name, *(f"{name}-{number}" for number in range(2, 100))):
        if work.files.get(f"secrets/{one}.yaml", _title(host)).startswith(_title(host)):
            return one
    return name


def _title(host: str) -> str:
    return f"# The login for {host}.\n"


def _secret(name: str, host: str, login: dict[str, Any]) -> str:
    if login.get("auth") and not login.get("username"):
        user, password = _opened(str(login["auth"]))
        login = {"username": user, "password": password} if user else login
    if login.get("username") and login.get("password"):
        data = {"username": str(login["username"]), "password": str(login["password"])}
    else:
        data = {".dockerconfigjson": json.dumps({"auths": {host: login}})}
    lines = "".join(f"  {yaml_scalar(key)}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in data.items())
    kind = f"apiVersion: reconciler/v1\nkind: Secret\nmetadata:\n  name: {name}\n"
    return f"{_title(host)}{kind}stringData:\n{lines}"


def _opened(auth: str) -> tuple[str, str]:
    """User and password of docker's `auth`; empty ones where it is none."""
    try:
        user, _, password = base64.b64decode(auth, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return user, password.strip("\0")
