"""Names of images: `[registry[:port]/]repository[:tag][@digest]`, as the OCI distribution-spec and its users have them.

Docker Hub's short names mean what everyone expects: `nginx` is `docker.io/library/nginx:latest`. The grammar is ASCII
only and is checked before a URL or a path is made of any part.
"""

from __future__ import annotations

import re
from typing import Final

from core.digest import Digest
from core.errors import Invalid
from core.values import dataclass

_LONGEST: Final = 1024
_LONGEST_REPOSITORY: Final = 255
_DOMAIN: Final = re.compile(
    r"(?:(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
_REPOSITORY: Final = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
TAG: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_BARE_ID: Final = re.compile(r"[0-9a-f]{64}")
_HUB: Final = "docker.io"
_HUB_NAMES: Final = ("docker.io", "index.docker.io", "registry-1.docker.io")


@dataclass(frozen=True, slots=True)
class Reference:
    """A normalised name. `tag` is "" when only a digest was given; with both, the digest decides."""

    registry: str
    repository: str
    tag: str
    digest: Digest | None

    @property
    def host(self) -> str:
        """`host[:port]` to connect to."""
        return "registry-1.docker.io" if self.registry == _HUB else self.registry

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"


def parse(text: str) -> Reference:
    """Read and normalise a reference; raises `Invalid` that names the part that is wrong."""
    if len(text) > _LONGEST:
        raise Invalid(f"image reference is {len(text)} characters long; at most {_LONGEST} are allowed")
    name, at, digest = text.partition("@")
    registry, rest = _split_registry(name, text)
    repository, colon, tag = rest.partition(":")
    if colon and not TAG.fullmatch(tag):
        raise _bad(text, f"tag {tag[:40]!r}", "A tag is up to 128 letters, digits, '_', '.', '-'.")
    if registry == _HUB and "/" not in repository:
        repository = f"library/{repository}"
    if not _REPOSITORY.fullmatch(repository) or len(repository) > _LONGEST_REPOSITORY:
        advice = "Repository names are lower-case letters, digits and single '.', '_', '-', '/' between them."
        raise _bad(text, f"repository {repository[:60]!r}", advice)
    if _BARE_ID.fullmatch(name):
        raise _bad(text, "a bare id", "Name the repository too: repository@sha256:…")
    return Reference(registry, repository, tag or ("" if at else "latest"), Digest.parse(digest) if at else None)


def _split_registry(name: str, text: str) -> tuple[str, str]:
    """The registry (docker.io when none is named) and what follows it."""
    first, slash, rest = name.partition("/")
    named = slash and ("." in first or ":" in first or first == "localhost" or first != first.lower())
    if not named:
        return _HUB, name
    found = _DOMAIN.fullmatch(first)
    if found is None:
        raise _bad(text, f"registry {first[:60]!r}", "A registry is a host name or address, then perhaps ':port'.")
    if found["port"] is not None and not 1 <= int(found["port"]) <= 65535:
        raise _bad(text, f"port {found['port']}", "Ports are 1 to 65535.")
    registry = first.lower()
    return (_HUB if registry in _HUB_NAMES else registry), rest


def _bad(text: str, part: str, advice: str) -> Invalid:
    return Invalid(f"image reference {text[:100]!r}: {part} is not valid", advice=advice)
