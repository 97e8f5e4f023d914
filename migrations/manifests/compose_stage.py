"""What all services of a compose file share, and what each part of one is read with."""

from __future__ import annotations

from collections.abc import Mapping

from core.values import dataclass
from migrations.manifests.compose_files import Files
from migrations.manifests.given import Account, Given
from migrations.manifests.making import Made, Settings


@dataclass(slots=True)
class Names:
    """What things are called here, by their names in compose."""

    volumes: dict[str, str]
    containers: Mapping[str, str]
    sandboxes: Mapping[str, str]


@dataclass(slots=True)
class Stage:
    """What all services share."""

    account: Account
    made: Made
    settings: Settings
    files: Files
    names: Names


@dataclass(slots=True)
class Part:
    """A service of which a part is read."""

    stage: Stage
    key: str
    given: Given

    @property
    def where(self) -> str:
        """How the report calls it."""
        return f"container/{self.stage.names.containers[self.key]}"

    @property
    def account(self) -> Account:
        """What became of each key."""
        return self.stage.account
