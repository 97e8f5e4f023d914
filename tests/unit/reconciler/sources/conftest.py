"""Manifests as text in, loaded values or faults as text out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from reconciler.sources.loading import Loaded, load
from reconciler.sources.substitution import Variables

VARIABLES = Variables("edge-1", {"site": "north"}, {"greeting": "hello"})


@pytest.fixture
def loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Loaded]:
    """Write files (name=text or bytes, `/` as `__`) into a folder and load them by their relative names."""
    monkeypatch.chdir(tmp_path)

    def write_and_load(*contents: str | bytes, **named: str | bytes) -> Loaded:
        files = {f"m{i or ''}.yaml": content for i, content in enumerate(contents)} | named
        for name, content in files.items():
            target = tmp_path / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.encode() if isinstance(content, str) else content)
        return load(list(files), VARIABLES)

    return write_and_load


@pytest.fixture
def faults(loaded: Callable[..., Loaded]) -> Callable[..., list[str]]:
    """The faults of files given as for `loaded`, as a person reads them."""
    return lambda *contents, **named: [str(fault) for fault in loaded(*contents, **named).faults]


@pytest.fixture
def container() -> Callable[[str], str]:
    """A whole Container with more lines in its spec; the first of them is line 6."""
    head = "apiVersion: reconciler/v1\nkind: Container\nmetadata: {name: web}\nspec:\n  image: web\n"
    return lambda lines: head + "".join(f"  {line}\n" for line in lines.splitlines())
