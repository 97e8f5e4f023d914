"""`reconciler runtime`: which runtimes may be asked for, and what each of them can do here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import click

from reconciler.cli.context import Node, pass_node
from reconciler.cli.output import MACHINE, output_option, say_items
from reconciler.cli.terminal import printable, say, tell
from reconciler.cli.texts import table

if TYPE_CHECKING:
    from core.runtime.probing import Prober
    from core.runtime.table import RuntimeSpec

HEAD = ("NAME", "DRIVER", "PROGRAM", "VERSION", "CGROUP", "SECCOMP", "CHECKPOINT", "NOTE")
_NOTED = ("platform", "network", "acceleration")


@click.group("runtime")
def command() -> None:
    """The runtimes of this node.

    \b
    Example:
      reconciler runtime ls
      reconciler runtime prepare vm
    """


@command.command("ls")
@output_option(*MACHINE)
@pass_node
def listing(node: Node, output: str | None) -> None:
    """The names that may stand under `runtime`, and what each of them can do here. Changes nothing.

    \b
    Example:
      reconciler runtime ls
    """
    from core.runtime.probing import told

    prober = prober_of(node)
    found = [(spec, told(spec, prober.probe(spec))) for spec in runtimes_of(node)]
    if output:
        say_items(({"name": spec.name, **seen} for spec, seen in found), output)
    else:
        say(printable(table(HEAD, [_row(spec.name, seen) for spec, seen in found])))


@command.command("prepare")
@click.argument("runtime", type=click.Choice(["vm"]))
@click.option("--guest", type=click.Path(file_okay=False), help="Not in /var/cache/reconciler/vm.")
def prepare(runtime: str, guest: str | None) -> None:
    """Make what virtual machines start from: a kernel and a small system, from Debian's packages.

    Nothing is installed. Where it is current there is nothing to do. For a node without Debian or network, make it
    elsewhere with --guest, copy the folder, and name it in the configuration (runtimes.NAME.options.guest).

    \b
    Example:
      reconciler runtime prepare vm
      reconciler runtime prepare vm --guest /mnt/stick/guest
    """
    from pathlib import Path

    from core.process import Launcher
    from core.runtime.vm.image import Maker, read
    from core.runtime.vm.installed import GUEST

    folder = Path(guest or GUEST)
    made = Maker(folder, Launcher(), lambda line: tell(f"guest        {line}")).make()
    say(f"{folder}: Linux {read(folder).get('kernel_version', '')}, {'made' if made else 'is current'}.")


def runtimes_of(node: Node) -> tuple[RuntimeSpec, ...]:
    """All that may be asked for: runc, which must work, first."""
    from core.runtime.drivers import all_runtimes
    from core.runtime.table import RuntimeSpec

    added = node.config().runtimes.items()
    specs = all_runtimes(RuntimeSpec(name, one.sandboxer, one.path or "", one.options) for name, one in added)
    return tuple(sorted(specs, key=lambda spec: (spec.name != "runc", spec.name)))


def prober_of(node: Node) -> Prober:
    """Asks runtimes, and keeps their answers beside the engine's where we may."""
    from core import cgroups
    from core.process import Launcher
    from core.runtime.probing import PROBES, Prober

    kept = node.paths.state if os.access(node.paths.state, os.W_OK) else None
    return Prober(Launcher(), cgroups.hierarchies(), None if kept is None else kept / PROBES)


def _row(name: str, seen: Mapping[str, Any]) -> tuple[str, ...]:
    can = seen.get("can", {})
    words = (_word(can.get(ability)) for ability in ("cgroup", "seccomp", "checkpoint"))
    note = "; ".join(notes(seen))
    return name, seen["driver"], seen.get("path", seen["program"]), seen.get("version", "-"), *words, note or "-"


def _word(value: object) -> str:
    if isinstance(value, list):
        return "+".join(value)
    return {True: "yes", False: "no"}.get(value, "-") if isinstance(value, bool) else "-"


def notes(seen: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with a runtime, what no column has room for, and what to look out for."""
    if "problem" in seen:
        yield f"{seen['problem']}: {seen['advice']}"
    can = seen.get("can", {})
    yield from (f"{name}: {'+'.join(can[name])}" for name in _NOTED if name in can)
    yield from seen.get("warnings", ())
