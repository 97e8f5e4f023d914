"""`reconciler doctor`: what this node can do, and what to install for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from reconciler.cli import completing
from reconciler.cli.checks import Finding, Level, findings
from reconciler.cli.context import Node, pass_node
from reconciler.cli.runtimes import prober_of, runtimes_of
from reconciler.cli.terminal import INDENT, paint, printable, say
from reconciler.cli.texts import counted

COLOURS = {Level.OK: "green", Level.LIMITED: "yellow", Level.MISSING: "red"}
OWN_NAME = "\0"
PACKAGES = "apt-get install "


@click.command("doctor")
@click.option(
    "--bundle",
    is_flag=False,
    flag_value=OWN_NAME,
    metavar="[FILE]",
    shell_complete=completing.files,
    help="Write a support bundle without secrets [reconciler-….tar.gz].",
)
@click.option("--with-logs", is_flag=True, help="With the ends of the workloads' logs in the bundle.")
@pass_node
def command(node: Node, bundle: str | None, with_logs: bool) -> int:
    """What this node can do, and what to install for the rest. Works without root, and changes nothing.

    Exit code 0: containers can run here; 1: something that they need is missing.

    \b
    Examples:
      reconciler doctor
      reconciler doctor --bundle
    """
    if with_logs and bundle is None:
        raise click.UsageError("--with-logs goes with --bundle.")
    prober = prober_of(node)
    runtimes = [(spec, prober.probe(spec)) for spec in runtimes_of(node)]
    found = list(findings(node.paths.root, runtimes))
    lines = report(found)
    say("\n".join(lines))
    if bundle is not None:
        from reconciler.cli.bundle import write_bundle

        path = write_bundle(node, lines, None if bundle == OWN_NAME else Path(bundle), with_logs=with_logs)
        say(f"The bundle is {path}: look through it before you give it away.")
    return 1 if any(one.level is Level.MISSING for one in found) else 0


def report(found: Sequence[Finding]) -> list[str]:
    """The lines of the report."""
    lines = []
    for one in found:
        mark = paint(f"{one.level.value:<7}", COLOURS[one.level])
        lines.append(f"{mark}  {one.subject:<12}  {printable(one.found)}")
        lines += [f"{INDENT}  {'':<12}  {one.advice}"] if one.advice else []
    missing = [one.subject for one in found if one.level is Level.MISSING]
    limited = [one.subject for one in found if one.level is Level.LIMITED]
    if missing:
        lines.append(f"Containers cannot run here: {', '.join(missing)}.")
    else:
        lines.append("Containers can run here" + (f"; limited: {', '.join(limited)}." if limited else "."))
    packages = [one.advice.partition(PACKAGES)[2] for one in found if one.advice.startswith("Install it: ")]
    if packages:
        lines.append(f"{counted(len(packages), 'package')} to install: {PACKAGES}{' '.join(packages)}")
    return lines
