"""`-o`: objects on stdout and nothing else, in the shape of the question: one object, or `{"items": […]}`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import click

from reconciler.cli.terminal import say

FORMATS: Final = ("wide", "json", "yaml", "name")
MACHINE: Final = ("json", "yaml")


def output_option(*formats: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The option `-o`, with `formats` to choose from."""
    return click.option("-o", "--output", type=click.Choice(formats), help="Another form than a table.")


def as_text(shape: Mapping[str, Any], output: str) -> str:
    """JSON (two spaces of indentation) or YAML, without a line break at the end."""
    if output == "yaml":
        from reconciler.sources.manifests import dump

        return dump([shape]).rstrip("\n")
    import json

    return json.dumps(shape, indent=2, ensure_ascii=False)


def say_one(shape: Mapping[str, Any], output: str) -> None:
    """The object itself."""
    say(as_text(shape, output))


def say_items(shapes: Iterable[Mapping[str, Any]], output: str) -> None:
    """All objects, also when there is one or none."""
    say(as_text({"items": list(shapes)}, output))
