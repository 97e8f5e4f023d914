"""Conversions for the tests: text in, documents, report and what our loader says of them out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from migrations.config.work import Entry
from migrations.manifests.given import Given
from migrations.manifests.making import Result, Settings
from reconciler.cli.converting import WAYS, documents_of, later, loadable
from reconciler.sources.files import ManifestFile
from reconciler.sources.manifests import dump


@dataclass
class Converted:
    """A result, with what tests ask of it. It has been loaded: what cannot be is an error."""

    given: list[Given]
    result: Result
    folder: str
    loads: bool = True
    text: str = field(init=False)

    def __post_init__(self) -> None:
        self.text = dump(self.result.documents)
        assert not self.loads or loadable(self.text, self.folder, "out.yaml") == []

    def spec(self, kind: str, name: str) -> dict[str, Any]:
        """The spec of one object."""
        (found,) = [one for one in self.result.documents if (one["kind"], one["metadata"]["name"]) == (kind, name)]
        spec: dict[str, Any] = found["spec"]
        return spec

    def metadata(self, kind: str, name: str) -> dict[str, Any]:
        """The metadata of one object."""
        (found,) = [one for one in self.result.documents if (one["kind"], one["metadata"]["name"]) == (kind, name)]
        metadata: dict[str, Any] = found["metadata"]
        return metadata

    def names(self, kind: str) -> list[str]:
        """The names of all objects of a kind."""
        return [one["metadata"]["name"] for one in self.result.documents if one["kind"] == kind]

    def entry(self, end: str) -> Entry:
        """The report's one line whose key ends so."""
        (found,) = [entry for entry in self.result.entries if entry.key.endswith(end)]
        return found

    def told(self) -> str:
        """Documents and report as one text."""
        width = max(len(entry.outcome) for entry in self.result.entries)
        lines = [
            f"{e.line:4} {e.outcome:{width}} {e.key} → {e.to or '-'} | {e.why or '-'}" for e in self.result.entries
        ]
        return "\n=====\n".join([self.text, "\n".join(lines) + "\n", "\n".join(self.result.told) + "\n"])


def convert(
    way: str,
    text: str | bytes,
    folder: str = "/srv/shop",
    variables: Mapping[str, str] | None = None,
    *,
    loads: bool = True,
) -> Converted:
    """Convert a document that lies in `folder`; what comes out is loaded, unless it `loads` not."""
    data = text.encode() if isinstance(text, str) else text
    documents = documents_of(ManifestFile("in.yaml", data), way)

    def read(path: str) -> bytes | None:
        file = Path(folder, path)
        return file.read_bytes() if file.is_file() else None

    settings = Settings(folder, read, variables or {}, later())
    return Converted(documents, WAYS[way](documents, settings), folder, loads)
