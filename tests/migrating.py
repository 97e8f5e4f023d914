"""Documents on their way, for the tests of migrations: text in, values, report and files out."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from typing import Any

from migrations.config import migrate
from migrations.config.tree import plain
from migrations.config.work import Entry, Settings

CRI = 'plugins."io.containerd.grpc.v1.cri"'
IMAGES = "io.containerd.cri.v1.images"
RUNTIME = "io.containerd.cri.v1.runtime"


@dataclass
class Moved:
    """A result, with what tests ask of it."""

    result: migrate.Result
    format: migrate.Format = "toml"
    values: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        text = self.result.text
        toml = self.format == "toml"
        self.values = tomllib.loads(text.decode()) if toml else plain(migrate.parse(text, "out", "yaml"))

    @property
    def text(self) -> str:
        """The new document."""
        return self.result.text.decode()

    @property
    def plugins(self) -> dict[str, Any]:
        """Its plugins."""
        found: dict[str, Any] = self.values.get("plugins", {})
        return found

    def entry(self, end: str) -> Entry:
        """The report's one line whose key ends so."""
        (found,) = [entry for entry in self.result.entries if entry.key.endswith(end)]
        return found

    def file(self, name: str) -> str:
        """A file beside the document."""
        return self.result.files[name].decode()


def to(target: int, text: str, **given: Any) -> Moved:
    """containerd's document at version `target`."""
    document = migrate.read_containerd(text.encode(), "config.toml", Settings("/out", **given))
    return Moved(migrate.to_containerd(document, target))


def ours(text: str, **given: Any) -> Moved:
    """containerd's document as our configuration."""
    settings = Settings("/out", ours=True, **given)
    return Moved(migrate.to_ours(migrate.read_containerd(text.encode(), "config.toml", settings)), "yaml")
