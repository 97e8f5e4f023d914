"""`reconciler schema KIND`."""

from __future__ import annotations

import click

from reconciler.cli import completing
from reconciler.cli.output import say_one
from reconciler.model.identity import kind_of


@click.command("schema")
@click.argument("kind", shell_complete=completing.kinds)
def command(kind: str) -> None:
    """Print the JSON Schema (draft 2020-12) of a kind, for editors.

    \b
    Example:
      reconciler schema container > container.schema.json
    """
    from reconciler.model.kinds.schema import json_schema

    say_one(json_schema(kind_of(kind)), "json")
