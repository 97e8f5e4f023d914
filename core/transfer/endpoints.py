"""How a registry, or a mirror of it, is reached: values that say it, and nothing that does it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import field
from enum import StrEnum
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from core.transfer import auth
from core.transfer.manners import Manners
from core.transfer.proxies import Proxies
from core.transfer.reference import Reference
from core.values import dataclass

CONNECT_SECONDS: Final = 10.0


class Can(StrEnum):
    """What a host may be asked for (containerd's words)."""

    PULL = "pull"
    """Content by digest."""
    RESOLVE = "resolve"
    """What a tag means: only for a host that is trusted as the registry itself."""
    PUSH = "push"


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom TLS believes: more authorities (files of certificates), our own certificates with their keys, or anybody."""

    ca: tuple[Path, ...] = ()
    client: tuple[tuple[Path, Path | None], ...] = ()
    skip_verify: bool = False


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One host that may be asked for one registry's images: `base` is the URL below which repositories lie."""

    base: str
    can: frozenset[Can] = frozenset(Can)
    trust: Trust = Trust()
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    connect_seconds: float = CONNECT_SECONDS
    namespace: str = ""
    """The registry that it stands for, told to a mirror as `?ns=`; "" for the registry itself."""

    @property
    def host(self) -> str:
        """`host[:port]`, as logins and people name it."""
        return urlsplit(self.base).netloc


@dataclass(frozen=True, slots=True)
class Ways:
    """What all transfers of a node share: `ca` is one more file of authorities, `plain` the hosts ("host" or
    "host:port") that may be reached without TLS, `manners` what is remembered of hosts that fail."""

    proxies: Proxies = field(default_factory=Proxies)
    ca: Path | None = None
    plain: Collection[str] = frozenset()
    manners: Manners | None = None


def upstream(reference: Reference, plain: Collection[str] = ()) -> Endpoint:
    """The registry itself, where no hosts.toml says otherwise."""
    return Endpoint(f"{auth.base_url(reference.host, plain)}/v2")
