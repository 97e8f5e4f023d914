"""Mirrors and other ways to a registry, from containerd's folders as they are: `<folder>/<host>/hosts.toml`.

Rules of this file: it reads files and nothing else. A file that cannot be used is an error with file and line, never a
reason to go straight to the registry. Hosts keep the file's order; `server` comes last. Keys that are not known here
are let be, since containerd's newer versions have more. Without a hosts.toml, docker's files count: `*.crt` are
authorities, `*.cert` with `*.key` our own certificates.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from posixpath import normpath
from typing import Any, Final
from urllib.parse import urlsplit

from core.errors import AgentError, Invalid, from_os_error
from core.fsio import read_bounded
from core.transfer import auth
from core.transfer.endpoints import CONNECT_SECONDS, Can, Endpoint, Trust, upstream
from core.transfer.reference import Reference
from core.values import dataclass

_MOST_BYTES: Final = 1 << 20
_ANY: Final = "_default"
_SPAN: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|us|µs|ns|s|m|h)")
_SECONDS: Final = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE: Final = re.compile(r"[\t -~]*")


def endpoints(reference: Reference, folders: Sequence[Path], plain: Collection[str] = ()) -> tuple[Endpoint, ...]:
    """Where to ask for an image, in order: the first folder that knows its registry decides, else the registry itself.

    `plain`: hosts that may be reached without TLS. Raises `Invalid` with file and line, `Denied`.
    """
    own = upstream(reference, plain)
    for folder in folders:
        for name in _names(reference.registry):
            found = folder / name
            if (file := found / "hosts.toml").is_file():
                return parse_hosts(_read(file), file, reference.registry, own)
            if found.is_dir():
                return (replace(own, trust=_docker_files(found)),)
    return (own,)


def _names(registry: str) -> tuple[str, ...]:
    """The folders that mean a registry: `host_port_`, `host:port`, `_default`."""
    host, colon, port = registry.rpartition(":")
    with_port = (f"{host}_{port}_", registry) if colon and port.isdecimal() else (registry,)
    return (*with_port, _ANY)


def _read(file: Path) -> bytes:
    try:
        return read_bounded(file, _MOST_BYTES)
    except OSError as error:
        raise from_os_error(error, f"reading {file}") from error


def _docker_files(folder: Path) -> Trust:
    try:
        names = sorted(folder.iterdir())
    except OSError as error:
        raise from_os_error(error, f"reading {folder}") from error
    pairs = []
    for certificate in (name for name in names if name.suffix == ".cert"):
        key = certificate.with_suffix(".key")
        if not key.exists():
            raise Invalid(f"{certificate} has no key beside it", advice=f"Add {key.name}.")
        pairs.append((certificate, key))
    return Trust(tuple(name for name in names if name.suffix == ".crt"), tuple(pairs))


def parse_hosts(data: bytes, file: Path, registry: str, own: Endpoint) -> tuple[Endpoint, ...]:
    """The endpoints that a hosts.toml names for `registry`; `own` is the registry itself. Raises `Invalid`."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _unusable(file, data[: error.start].count(b"\n") + 1, "not UTF-8") from None
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line ([0-9]+)", str(error))
        place = int(line[1]) if line else max(1, text.rstrip("\n").count("\n") + 1)
        raise _unusable(file, place, str(error).partition(" (at ")[0]) from None
    except RecursionError:
        raise _unusable(file, 1, "nested too deep") from None
    found: list[Endpoint] = []
    hosts = document.get("host", {})
    if not isinstance(hosts, dict):
        raise _unusable(file, 1, "host is not a table", 'Write [host."https://mirror.example"].')
    for url, fields in hosts.items():
        table = _Table(fields, file, text, url)
        found += _hosts(table, url, registry, own)
    table = _Table({key: value for key, value in document.items() if key != "host"}, file, text, "")
    server = table.text("server")
    return (*found, *(_hosts(table, server, registry, own) if server else [_adorned(own, table)]))


def _hosts(table: _Table, url: str, registry: str, own: Endpoint) -> list[Endpoint]:
    """One table's endpoint. One with http and TLS settings is asked by https first, as containerd does."""
    full = url if "://" in url else f"https://{url}"
    try:
        auth.origin(full, {urlsplit(full).netloc.lower()})
        split = urlsplit(full)
    except (AgentError, ValueError) as error:
        raise table.wrong(url, str(error)) from None
    path = split.path.rstrip("/") if table.flag("override_path") else _api_path(split.path)
    base = f"{split.scheme}://{split.netloc.lower()}{path}"
    same = base == own.base
    endpoint = _adorned(Endpoint(base, namespace="" if same else registry), table)
    if split.scheme == "http" and endpoint.trust != Trust():
        return [replace(endpoint, base=f"https{base[4:]}"), endpoint]
    return [endpoint]


def _api_path(path: str) -> str:
    clean = normpath(path) if path.strip("/") else ""
    return clean if clean.endswith("/v2") else f"{clean}/v2"


def _adorned(endpoint: Endpoint, table: _Table) -> Endpoint:
    """`endpoint` with what its table says of it."""
    return replace(
        endpoint,
        can=table.capabilities(),
        trust=Trust(table.paths("ca"), table.client(), table.flag("skip_verify")),
        headers=table.headers(),
        connect_seconds=table.seconds("dial_timeout", CONNECT_SECONDS),
    )


@dataclass(frozen=True, slots=True)
class _Table:
    """The keys of one host, with where they stand: `name` is the host's URL, "" for the top of the file."""

    fields: Any
    file: Path
    source: str
    name: str

    def __post_init__(self) -> None:
        if not isinstance(self.fields, dict):
            raise self.wrong(self.name, "is not a table")

    def wrong(self, key: str, what: str, advice: str = "") -> Invalid:
        """The fault of a key."""
        return _unusable(self.file, self._line(key), f"{key}: {what}", advice)

    def _line(self, key: str) -> int:
        """The line of `key` in this table: tomllib does not say, so the text is looked through."""
        lines = self.source.split("\n")
        starts = [at for at, line in enumerate(lines) if self.name and self.name in line]
        first = starts[0] if starts else 0
        word = re.compile(rf"(?<![\w-]){re.escape(key)}(?![\w-])")
        mentions = (at for at in range(first, len(lines)) if word.search(lines[at].partition("#")[0]))
        return next(mentions, first) + 1

    def text(self, key: str) -> str:
        """A string; "" when it is not there."""
        value = self.fields.get(key, "")
        if not isinstance(value, str):
            raise self.wrong(key, "is not a string")
        return value

    def flag(self, key: str) -> bool:
        """A switch; off when it is not there."""
        value = self.fields.get(key, False)
        if not isinstance(value, bool):
            raise self.wrong(key, "is neither true nor false")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A string or a list of them."""
        value = self.fields.get(key, ())
        listed = (value,) if isinstance(value, str) else value
        if not isinstance(listed, list | tuple) or not all(isinstance(one, str) for one in listed):
            raise self.wrong(key, "is neither a string nor a list of strings")
        return tuple(listed)

    def paths(self, key: str) -> tuple[Path, ...]:
        """Files; relative ones lie beside the hosts.toml."""
        return tuple(self.file.parent / one for one in self.texts(key))

    def client(self) -> tuple[tuple[Path, Path | None], ...]:
        """Certificates: one file with its key in it, several such files, or pairs of certificate and key."""
        value = self.fields.get("client", ())
        if not isinstance(value, list) or not any(isinstance(one, list) for one in value):
            return tuple((path, None) for path in self.paths("client"))
        pairs = [one if isinstance(one, list) else [one, ""] for one in value]
        for pair in pairs:
            if not 1 <= len(pair) <= 2 or not all(isinstance(part, str) for part in pair):
                raise self.wrong("client", "holds something that is no pair of certificate and key")
        beside = self.file.parent
        return tuple((beside / pair[0], beside / pair[1] if pair[1:] and pair[1] else None) for pair in pairs)

    def capabilities(self) -> frozenset[Can]:
        """What the host may be asked for; none named: everything. What only pushes or lists is let be."""
        named = [word.lower() for word in self.texts("capabilities")]
        for word in named:
            if word not in (*Can, "referrers"):
                raise self.wrong("capabilities", f"{word!r} is not known", f"Known: {', '.join(Can)}, referrers.")
        return frozenset(can for can in Can if can in named) if named else frozenset(Can)

    def headers(self) -> Mapping[str, str]:
        """Headers to send along."""
        table = self.fields.get("header", {})
        if not isinstance(table, dict):
            raise self.wrong("header", "is not a table")
        own = _Table(table, self.file, self.source, self.name)
        found = {name: ", ".join(own.texts(name)) for name in table}
        for name, value in found.items():
            if not _TOKEN.fullmatch(name) or not _VALUE.fullmatch(value):
                raise self.wrong(name, "is not a header that can be sent")
        return found

    def seconds(self, key: str, otherwise: float) -> float:
        """A span of time as Go writes it (`1m30s`)."""
        text = self.text(key)
        if not text:
            return otherwise
        parts = _SPAN.findall(text)
        if "".join(number + unit for number, unit in parts) != text:
            raise self.wrong(key, f"{text[:40]!r} is not a span of time", 'Write one like "5s".')
        return max(0.001, sum(float(number) * _SECONDS[unit] for number, unit in parts))


def _unusable(file: Path, line: int, what: str, advice: str = "") -> Invalid:
    return Invalid(f"{file}:{line}: {what}", advice=advice or "Correct the file; nothing is pulled around it.")
