"""`reconciler config`: what the agent is told beside manifests. Each command's work is in a module of its own."""

from __future__ import annotations

import click

from reconciler.cli.context import Node, pass_node
from reconciler.cli.output import MACHINE, output_option


@click.group("config")
def command() -> None:
    """The agent's own configuration: one file, and the drop-ins in conf.d beside it.

    \b
    Examples:
      reconciler config default > /etc/reconciler/config.yaml
      reconciler config validate /etc/reconciler/config.yaml
      reconciler config show --origin
    """


@command.command("default")
def default() -> None:
    """Print a configuration with every key, its meaning and its default."""
    import sys

    from reconciler.model.settings import default_text

    sys.stdout.write(default_text())


@command.command("show")
@click.option("--origin", is_flag=True, help="Say for each value where it comes from.")
@output_option(*MACHINE)
@pass_node
def show(node: Node, origin: bool, output: str | None) -> int:
    """Print the configuration in force: of the file, its drop-ins, the options and the environment.

    What a file says after the agent read it last is told on stderr. Passwords are never shown.

    \b
    Examples:
      reconciler config show
      reconciler config show --origin
    """
    from reconciler.cli.configuration import show_config

    return show_config(node, output or "", origin=origin)


@command.command("validate")
@click.argument("file", required=False)
@pass_node
def validate(node: Node, file: str | None) -> int:
    """Check a configuration with its drop-ins; every fault is told, with file, line and column. Changes nothing.

    FILE is what is checked [the configuration in force]. Exit code 0: it can be used; 1: it cannot.

    \b
    Examples:
      reconciler config validate
      reconciler config validate new.yaml
    """
    from reconciler.cli.configuration import validate_config

    return validate_config(node, file)


@command.command("schema")
def schema() -> None:
    """Print the JSON Schema (draft 2020-12) of the configuration, for editors.

    \b
    Example:
      reconciler config schema > config.schema.json
    """
    from reconciler.cli.output import say_one
    from reconciler.model.settings import config_schema

    say_one(config_schema(), "json")


@command.command("migrate")
@click.argument("file")
@click.option("--from", "source", type=click.Choice(["containerd", "reconciler"]), default="reconciler", help="Whose.")
@click.option("--to", metavar="VERSION", help="containerd's 2, 3 or 4 [4], or reconciler [2].")
@click.option("--write", is_flag=True, help="Replace the file, and those that it imports; the old ones are kept.")
@click.option("--out", metavar="DIR", help="Write all there: the document, certs.d, secrets, report.json.")
@click.option("--report", type=click.Choice(["table", "json"]), default="table", help="How each key is told [table].")
@click.option("--strict", is_flag=True, help="Exit with 1 when anything is dropped; --write then writes nothing.")
def migrate(file: str, source: str, to: str | None, write: bool, out: str | None, report: str, strict: bool) -> int:
    """Bring a configuration to a newer version, or containerd's to ours, without losing a key.

    The document goes to stdout, what became of each key to stderr. Comments and order are kept.
    Exit code 0; 1: it cannot be used (nothing is written), or --strict and something was dropped.

    \b
    Examples:
      reconciler config migrate /etc/reconciler/config.yaml --write
      reconciler config migrate --from containerd /etc/containerd/config.toml --to reconciler --out new
      reconciler config migrate --from containerd /etc/containerd/config.toml --to 4 --report json
    """
    from reconciler.cli.migrating import Wanted, migrate_config, target_of

    theirs = source == "containerd"
    target = target_of(theirs, to)
    if write and out:
        raise click.UsageError("--write and --out are two ways to write: give one.")
    if write and theirs and target is None:
        raise click.UsageError("--write would replace containerd's file with ours: use --out DIR.")
    return migrate_config(Wanted(file, theirs, target, write, out, report, strict))
