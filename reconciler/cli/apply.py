"""`reconciler apply`: from manifests to a node that is as they say."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

import click

from core import telemetry
from core.errors import Conflict, Denied
from reconciler.cli import completing
from reconciler.cli.context import Node, pass_node
from reconciler.cli.options import DURATION, files
from reconciler.cli.output import output_option
from reconciler.cli.terminal import complain, say, tell

if TYPE_CHECKING:
    from reconciler.cli.proposal import Proposal, Request
    from reconciler.model.identity import Key
    from reconciler.model.objects import Object
    from reconciler.store.port import ObjectStore
    from reconciler.wiring import Verdict

OTHER_PLAN: Final = 4
NEED_ROOT: Final = ("Image", "Sandbox", "Container")
PAST: Final = {"create": "created", "change": "changed", "replace": "replaced", "remove": "removed"}


@click.command("apply")
@files("A file, a folder, or -.", required=True)
@click.option(
    "--set",
    "set_name",
    default="",
    metavar="NAME",
    shell_complete=completing.sets,
    help="Record these as the members of a set.",
)
@click.option("--prune", is_flag=True, help="Remove members of the set that are not given any more.")
@click.option("--dry-run", is_flag=True, help="Show the plan, and do nothing.")
@click.option("--plan", "plan", default="", metavar="ID", help="Only if this is still what would be done.")
@click.option("--take-over", is_flag=True, help="Take over what others manage.")
@click.option("--wait/--no-wait", default=True, help="Wait until it is so [wait].")
@click.option("--timeout", type=DURATION, default=300.0, metavar="5m", help="Give up waiting after this long [5m].")
@output_option("json", "yaml")
@pass_node
def command(node: Node, /, paths: tuple[str, ...], set_name: str, prune: bool, take_over: bool, **how: object) -> int:
    """Make the node what the manifests say, and wait until it is.

    Exit code 0: it is (or accepted, with --no-wait); 1: invalid, nothing changed, or what is not ready is stalled;
    3: not in time; 4: the plan given is not what would be done.

    \b
    Examples:
      reconciler apply -f web.yaml
      reconciler apply -f manifests/ --set edge --prune
      reconciler apply -f - < web.yaml
    """
    from reconciler.cli.proposal import requested
    from reconciler.cli.tracing import traced

    request = requested(node.config(), paths, set_name, prune=prune, take_over=take_over)
    with traced(node, "apply"):
        return _Apply(node, request, how).run()


class _Apply:
    """One apply: shows the plan, commits it, waits."""

    def __init__(self, node: Node, request: Request, how: dict[str, object]) -> None:
        self.node, self.request, self.how = node, request, how
        self.output = str(how["output"] or "")
        self.speak: Callable[[str], None] = tell if self.output else say

    def run(self) -> int:
        """All steps; the exit code."""
        from reconciler.cli.plans import plan_table
        from reconciler.cli.proposal import propose

        began = self.node.clock.monotonic()
        proposal = propose(self.request, self.node.store())
        for line in plan_table(proposal):
            self.speak(line)
        if (other := self.how["plan"]) and other != proposal.id:
            advice = "Look at the plan above, and if it is right, give its id."
            complain(Conflict(f"plan {other} is not what would be done: that is plan {proposal.id}", advice=advice))
            return OTHER_PLAN
        if self.how["dry_run"]:
            return self._answer(None, proposal)
        if self.how["wait"]:
            refuse_without_root(proposal.wanted)
        sys.stdout.flush()
        store = self.node.store_to_write()
        verdict = self._commit(store, proposal)
        if verdict is None:
            self._accepted(proposal)
            return self._answer(store, proposal)
        return self._told(store, proposal, verdict, self.node.clock.monotonic() - began)

    def _commit(self, store: ObjectStore, proposal: Proposal) -> Verdict | None:
        """Durably: the store, then applied/, then the doorbell; then wait. None: not waited for."""
        from reconciler.cli.delete import settle
        from reconciler.engine.doorbell import ring
        from reconciler.model.identity import FINALIZERS
        from reconciler.store.applied import keep_applied
        from reconciler.store.functions import Wanted, apply_specs

        paths = self.node.paths
        self._wait_for_the_old(store, proposal)
        telemetry.note(objects=len(proposal.wanted), manager=self.request.manager.name)
        applied = apply_specs(
            store,
            [Wanted(obj.key, obj.spec, obj.labels, obj.annotations, obj.origin) for obj in proposal.wanted],
            self.request.manager,
            finalizers=FINALIZERS,
            prune_at=self.node.clock.wall() if self.request.prune else None,
        )
        given = frozenset(obj.key for obj in proposal.wanted)
        keep_applied(paths.root, store, given | set(applied.pruned))
        ring(paths.state)
        if not self.how["wait"]:
            return None
        keys = given | {row.key for row in proposal.changes}
        if not proposal.changes and (known := known_to_be_so(self.node, store, keys)):
            return known
        verdict = settle(self.node, store, keys, self._timeout)
        if applied.pruned:
            keep_applied(paths.root, store, applied.pruned)
        return verdict

    @property
    def _timeout(self) -> float:
        timeout = self.how["timeout"]
        assert isinstance(timeout, float)
        return timeout

    def _wait_for_the_old(self, store: ObjectStore, proposal: Proposal) -> None:
        """What is being deleted and wanted again is made anew when the old one is gone."""
        from reconciler.cli.delete import settle

        going: list[Key] = []
        for obj in proposal.wanted:
            found = store.get(obj.key)
            if found is not None and found.deleted is not None:
                going.append(obj.key)
        if going and self.how["wait"]:
            settle(self.node, store, frozenset(going), self._timeout)

    def _accepted(self, proposal: Proposal) -> None:
        from reconciler.cli.status import engine_of
        from reconciler.cli.texts import counted

        self.speak(f"Accepted: {counted(len(proposal.wanted), 'object')}.")
        if not engine_of(self.node):
            self.speak("no agent on this node: nothing is done until one runs; run: reconciler agent install")

    def _told(self, store: ObjectStore, proposal: Proposal, verdict: Verdict, seconds: float) -> int:
        from reconciler.cli.verdicts import NO_AGENT, exit_code, tell_failures

        keys = verdict.stalled | verdict.pending
        tell_failures(store.list() if keys else (), keys)
        self.speak(closing_line(proposal, len(verdict.stalled), len(verdict.pending), seconds))
        if not verdict.supervised and any(obj.kind == "Container" for obj in proposal.wanted):
            self.speak(NO_AGENT)
        if not verdict.supervised:
            for obj in proposal.wanted:
                if obj.kind == "Source":
                    self.speak(f"{obj.key} waits for an agent: it alone fetches sources; run: reconciler agent")
        return self._answer(store, proposal) or exit_code(verdict)

    def _answer(self, store: ObjectStore | None, proposal: Proposal) -> int:
        """With `-o`, the objects as they are now, or (a dry run) as they would be."""
        if self.output:
            from reconciler.cli.masks import masked
            from reconciler.cli.output import say_items

            found = [(store.get(obj.key) if store is not None else None) or obj for obj in proposal.wanted]
            say_items([masked(obj) for obj in found], self.output)
        return 0


def _is_of_modules(obj: Object) -> bool:
    """Whether it is, or is for, a WASM module: that needs no root."""
    return obj.spec.get("runtime") == "wasm" or str(obj.spec.get("platform", "")).endswith("/wasm")


def refuse_without_root(wanted: Iterable[Object]) -> None:
    """Say before anything is started that it cannot be; raises `Denied`."""
    needs = [obj for obj in wanted if obj.kind.value in NEED_ROOT and not _is_of_modules(obj)]
    if needs and os.geteuid() != 0:
        raise Denied(
            f"{needs[0].key} needs root, and this is uid {os.geteuid()}",
            advice="Run it as root. What is missing on this node: reconciler doctor",
        )


def known_to_be_so(node: Node, store: ObjectStore, keys: frozenset[Key]) -> Verdict | None:
    """The verdict when nothing was changed and an agent, who keeps watch, says that all is as it should be."""
    from reconciler.cli.status import engine_of
    from reconciler.wiring import judge

    if not engine_of(node).startswith("the agent"):
        return None
    verdict = judge(store, keys, supervised=True)
    return None if verdict.pending or verdict.stalled else verdict


def closing_line(proposal: Proposal, stalled: int, pending: int, seconds: float) -> str:
    """`Converged: 7 objects, 2 created, 1 replaced, in 2.4 s.`"""
    from reconciler.cli.texts import counted
    from reconciler.decide.changes import Op

    objects = counted(len(proposal.wanted), "object")
    if stalled or pending:
        left = [f"{stalled} stalled"] * bool(stalled) + [f"{pending} still in progress"] * bool(pending)
        return f"Not converged: {objects}, {', '.join(left)}, after {seconds:.1f} s."
    done = [f"{count} {PAST[op]}" for op in Op if op in PAST and (count := proposal.count(op))]
    return f"Converged: {', '.join([objects, *(done or ['nothing to do'])])}, in {seconds:.1f} s."
