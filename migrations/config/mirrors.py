"""Registries as the CRI plugin knew them (`mirrors`, `configs.HOST.tls`) to folders of `hosts.toml`.

Rules of this file: what a `hosts.toml` says already stays; mirrors come after it. The registry itself is asked last, as
before, as no `server` is written where none is needed. The old plugin used an endpoint's path as it is; `hosts.toml`
adds `/v2` unless `override_path` is set.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any, Final

from migrations.config.logins import host_of
from migrations.config.toml_text import text_of
from migrations.config.tree import BadDocument, Path
from migrations.config.work import Outcome, Work

_DOCKER: Final = "registry-1.docker.io"
_NAMES: Final = {"ca_file": "ca", "cert_file": "client", "key_file": "client", "insecure_skip_verify": "skip_verify"}


def mirrors_to_hosts(work: Work, registry: Path) -> None:
    """Write what is in the table `registry` as `certs.d/<host>/hosts.toml`, joined with those that its `config_path`
    names; raises `BadDocument` for one of those that is none."""
    _Mirrors(work, registry).write()


class _Mirrors:
    """`trust`: lines for each host that is trusted in its own way; `placed`: the files where they stand now; `held`:
    whether our own folder has a file already that counts (of a run that was broken off, perhaps).
    """

    def __init__(self, work: Work, registry: Path) -> None:
        self.work, self.registry = work, registry
        self.trust = {host_of(name): lines for name in self._names("configs") if (lines := list(self._trust(name)))}
        self.placed: dict[str, list[str]] = {}
        self.made: dict[str, str] = {}
        self.held = False

    def _names(self, *path: str) -> list[str]:
        return self.work.names(*self.registry, *path)

    def _value(self, *path: str) -> Any:
        return self.work.value(*self.registry, *path)

    def _drop(self, path: Path, why: str, outcome: Outcome = Outcome.DROPPED, to: str = "") -> None:
        self.work.drop((*self.registry, *path), why, outcome, to)

    def write(self) -> None:
        """All of it, with a word about each key."""
        for space in self._names("mirrors"):
            self._mirror(space)
        for host in [host for host in self.trust if host not in self.placed]:
            self._server("docker.io" if host == _DOCKER else host, host)
        for name in self._names("configs"):
            self._tell_trust(name)
        for gone in ("mirrors", "configs", "auths"):
            self._drop((gone,), "empty", Outcome.DEFAULT)
        self.work.files.update({_file(name): text for name, text in self.made.items()})
        if self.made or self.held:
            self._point()

    def _trust(self, name: str) -> Iterator[str]:
        ca, cert, key = (self._value("configs", name, "tls", part) for part in ("ca_file", "cert_file", "key_file"))
        if ca:
            yield f"ca = {text_of(ca)}"
        if cert:
            yield f"client = [[{text_of(cert)}, {text_of(key)}]]" if key else f"client = {text_of(cert)}"
        if self._value("configs", name, "tls", "insecure_skip_verify"):
            yield "skip_verify = true"

    def _there(self, name: str) -> tuple[str, dict[str, Any]]:
        """What the hosts.toml of `name` holds already, as text and as values."""
        if (made := self.made.get(name, self.work.files.get(_file(name)))) is not None:
            return made, tomllib.loads(made)
        for folder in dict.fromkeys([*str(self._value("config_path") or "").split(":"), self.work.settings.certs]):
            for spelled in _spellings(name) if folder else ():
                path = f"{folder}/{spelled}/hosts.toml"
                if (data := self.work.settings.hosts(path)) is not None:
                    self.held |= folder == self.work.settings.certs
                    return _checked(path, data)
        return "", {}

    def _mirror(self, space: str) -> None:
        name = "_default" if space == "*" else space
        text, there = self._there(name)
        known = {url.rstrip("/") for url in there.get("host", {})}
        endpoints = [end.rstrip("/") for end in self._value("mirrors", space, "endpoint") or []]
        blocks = [self._block(name, end) for end in dict.fromkeys(endpoints) if end not in known]
        top = ""
        for host in (_DOCKER if space == "docker.io" else space, space):
            if host in self.trust and host not in self.placed and "server" not in there and not top:
                top = _server(host, self.trust[host])
                self.placed[host] = [_file(name)]
        if blocks or top:
            self.made[name] = "\n".join(part for part in (top, text, *blocks) if part)
        self._tell_mirror(space, _file(name))

    def _block(self, name: str, endpoint: str) -> str:
        path = endpoint.split("://", 1)[-1].partition("/")[2]
        lines = [f"[host.{text_of(endpoint)}]", '  capabilities = ["pull", "resolve"]']
        if (host := host_of(endpoint)) in self.trust:
            lines += [f"  {line}" for line in self.trust[host]]
            self.placed.setdefault(host, []).append(_file(name))
        lines += ["  override_path = true"] if path and not f"/{path}".endswith("/v2") else []
        return "\n".join(lines) + "\n"

    def _server(self, name: str, host: str) -> None:
        """A registry that has no mirror, only its own trust."""
        text, there = self._there(name)
        if "server" not in there and not any(host_of(url) == host for url in there.get("host", {})):
            self.placed[host] = [_file(name)]
            self.made[name] = "\n".join(part for part in (_server(host, self.trust[host]), text) if part)

    def _tell_mirror(self, space: str, file: str) -> None:
        where = ("mirrors", space)
        for key in self._names(*where):
            if key != "endpoint":
                self._drop((*where, key), f"hosts.toml knows no {key}: write its outcome into the mirror's URL")
            elif self._value(*where, key):
                how = "the same hosts in the same order, then the registry itself"
                self._drop((*where, key), how, Outcome.TRANSLATED, file)
            else:
                self._drop((*where, key), "names no mirror", Outcome.DEFAULT)
        self._drop(where, "names no mirror", Outcome.DEFAULT)

    def _tell_trust(self, name: str) -> None:
        where, host = ("configs", name), host_of(name)
        files = ", ".join(dict.fromkeys(self.placed.get(host, [])))
        keyless = not self._value(*where, "tls", "cert_file")
        for key in self._names(*where, "tls"):
            path = (*where, "tls", key)
            if not self._value(*path):
                self._drop(path, "says nothing", Outcome.DEFAULT)
            elif key not in _NAMES:
                self._drop(path, f"hosts.toml knows no {key}")
            elif key == "key_file" and keyless:
                self._drop(path, "a key without a certificate has no effect", Outcome.INERT)
            elif files:
                self._drop(path, f"{_NAMES[key]} of {host}", Outcome.TRANSLATED, files)
            else:
                self._drop(path, f"the hosts.toml of {host} that is there says itself how it is reached; look at it")
        for key in self._names(*where):
            empty = not self._names(*where, key)
            self._drop((*where, key), "empty" if empty else "unknown", Outcome.DEFAULT if empty else Outcome.DROPPED)
        self._drop(where, "empty", Outcome.DEFAULT)

    def _point(self) -> None:
        """Let `config_path` begin with our folder."""
        node, certs = self.work.get(*self.registry, "config_path"), self.work.settings.certs
        if node is None:
            self.work.add((*self.registry, "config_path"), certs)
            return
        folders = [folder for folder in node.value.split(":") if folder]
        joined = ":".join(dict.fromkeys([certs, *folders]))
        if joined != node.value:
            node.set(joined)
            self.work.note(node, Outcome.TRANSLATED, "the folder with the mirrors comes first, joined with the others")


def _file(name: str) -> str:
    return f"certs.d/{name}/hosts.toml"


def _spellings(name: str) -> tuple[str, ...]:
    host, colon, port = name.rpartition(":")
    return (f"{host}_{port}_", name) if colon else (name,)


def _server(host: str, lines: list[str]) -> str:
    return "\n".join([f'server = "https://{host}"', *lines]) + "\n"


def _checked(path: str, data: bytes) -> tuple[str, dict[str, Any]]:
    try:
        text = data.decode()
        return text, tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadDocument(path, 1, 1, f"is no hosts.toml: {error}", "Correct it, or move it away.") from None
