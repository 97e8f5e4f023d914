"""From an image's name to the places where it may be fetched: mirrors, logins, proxies, as the node is set up."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from core.clock import Clock
from core.errors import Invalid
from core.process import Launcher
from core.transfer.reference import Reference
from core.values import dataclass

if TYPE_CHECKING:
    from core.transfer.auth import Credentials
    from core.transfer.endpoints import Endpoint, Ways
    from core.transfer.manners import Manners
    from core.transfer.mirrors import Mirrors
    from core.transfer.push import Upload
    from core.transfer.registry import Registry

DOCKER_CONFIG: Final = ".dockerconfigjson"
"""The key of a Secret that holds a docker config.json."""


@dataclass(frozen=True, slots=True)
class TransferSettings:
    """What the node's configuration says of transfers: folders of hosts.toml, logins, proxies (None: the environment
    says), authorities, hosts without TLS, blobs at once, percent of the disk to leave free."""

    hosts: tuple[Path, ...] = ()
    docker_config: Path | None = None
    proxy: tuple[str | None, str | None, tuple[str, ...]] = field(default=(None, None, ()), repr=False)
    ca: Path | None = None
    plain: frozenset[str] = frozenset()
    parallel: int = 4
    keep_free: int = 0


class Remotes:
    """Opens images for transfer. What is remembered of failing hosts is shared by all that one of these opens."""

    def __init__(self, settings: TransferSettings, launcher: Launcher, clock: Clock, env: Mapping[str, str]) -> None:
        self.settings = settings
        self._launcher = launcher
        self._clock = clock
        self._env = env
        self._manners: Manners | None = None

    def configure(self, settings: TransferSettings) -> None:
        """Go by these for what is opened from now on; how hosts answered until now is forgotten."""
        if settings != self.settings:
            self.settings = settings
            self._manners = None

    def open(self, reference: Reference, secret: Mapping[str, bytes], name: str = "") -> Registry | Mirrors:
        """The image at its mirrors and its registry, to be used as a block.

        `secret` holds the login that the image names, if any: username and password for its registry alone, or a
        `.dockerconfigjson` for the hosts in there; `name` is the Secret's. Raises `Invalid`, `Denied`.
        """
        from core.transfer.hosts import endpoints
        from core.transfer.mirrors import open_image

        places = endpoints(reference, self.settings.hosts, self.settings.plain)
        given = self._given(reference, secret, name) if secret else None
        return open_image(
            reference, places, self._ways(), lambda place: self._login(reference, place, given), self._clock
        )

    def upload(self, reference: Reference, secret: Mapping[str, bytes], name: str = "") -> Upload:
        """Where an image is pushed to: the first place that hosts.toml lets be pushed to, else its own registry.

        To be used as a block; raises as `open`.
        """
        from core.transfer.endpoints import Can
        from core.transfer.hosts import endpoints
        from core.transfer.push import Upload

        places = endpoints(reference, self.settings.hosts, self.settings.plain)
        place = next((one for one in places if Can.PUSH in one.can), places[-1])
        given = self._given(reference, secret, name) if secret else None
        return Upload(reference, self._login(reference, place, given), self._clock, endpoint=place, ways=self._ways())

    def _ways(self) -> Ways:
        from core.transfer.endpoints import Ways
        from core.transfer.manners import Manners
        from core.transfer.proxies import Proxies

        if self._manners is None:
            self._manners = Manners(self._clock)
        http, https, direct = self.settings.proxy
        named = http or https
        proxies = Proxies.of(http, https, direct) if named else Proxies.from_environment(self._env)
        return Ways(proxies, self.settings.ca, self.settings.plain, self._manners)

    def _given(
        self, reference: Reference, secret: Mapping[str, bytes], name: str
    ) -> Callable[[str], Credentials | None]:
        """The logins in a Secret, by host."""
        from core.transfer.auth import Credentials
        from core.transfer.logins import parse_logins

        if DOCKER_CONFIG in secret:
            logins = parse_logins(secret[DOCKER_CONFIG], f"secret/{name}: {DOCKER_CONFIG}")
            return lambda host: logins.find(host, reference.repository, None)
        try:
            user, password = (secret[key].decode() for key in ("username", "password"))
        except (KeyError, UnicodeDecodeError):
            advice = f"Give the Secret the keys username and password, or {DOCKER_CONFIG}."
            raise Invalid(f"secret/{name} holds no login", advice=advice) from None
        return lambda host: Credentials(user, password) if host == reference.registry else None

    def _login(
        self, reference: Reference, place: Endpoint, given: Callable[[str], Credentials | None] | None
    ) -> Callable[[], Credentials | None]:
        host = place.host if place.namespace else reference.registry

        def look() -> Credentials | None:
            found = given(host) if given is not None else None
            return found or self._kept(host, reference.repository)

        return look

    def _kept(self, host: str, repository: str) -> Credentials | None:
        """What the node's own file of logins has for a host."""
        from core.transfer.logins import read_logins

        file = self._login_file()
        return read_logins(file).find(host, repository, self._launcher) if file is not None else None

    def _login_file(self) -> Path | None:
        if self.settings.docker_config is not None:
            return self.settings.docker_config
        if named := self._env.get("REGISTRY_AUTH_FILE"):
            return Path(os.path.abspath(named))
        if folder := self._env.get("DOCKER_CONFIG"):
            file = Path(os.path.abspath(folder)) / "config.json"
            return file if file.exists() else None
        return None
