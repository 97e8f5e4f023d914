"""`reconciler source`: where desired state comes from."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from core.errors import Denied, Invalid, Unavailable
from reconciler.cli import completing
from reconciler.cli.context import Node, pass_node
from reconciler.cli.options import DURATION
from reconciler.cli.output import FORMATS, output_option
from reconciler.cli.terminal import complain_in_words, say
from reconciler.model.identity import Key, Kind, checked_name
from reconciler.model.objects import Object, with_local

if TYPE_CHECKING:
    from reconciler.store.port import ObjectStore

NO_AGENT = "no agent on this node: nothing is fetched until one runs; run: reconciler agent"
TIMED_OUT = 3
POLL_SECONDS = 0.5


@click.group("source")
def command() -> None:
    """Where this node's desired state comes from: git repositories and folders.

    \b
    Examples:
      reconciler source add edge --git https://git.example.org/edge.git --branch main --path nodes/edge
      reconciler source add local --folder /etc/reconciler/manifests
      reconciler source sync edge
    """


@command.command("add")
@click.argument("name")
@click.option("--git", "git_url", metavar="URL", help="A repository: https, ssh, or file.")
@click.option("--folder", metavar="DIR", help="A folder of this node.")
@click.option("--branch", metavar="NAME", help="Follow this branch [what the repository names].")
@click.option("--tag", metavar="NAME", help="Take this tag.")
@click.option("--commit", metavar="ID", help="Take this commit, by its full id.")
@click.option("--secret", metavar="NAME", help="The Secret with the login, or the SSH key.")
@click.option("--path", metavar="DIR", help="The folder in it to begin at.")
@click.option("--interval", metavar="60s", help="Look for a new revision so often [60s].")
@click.option("--value", "values", multiple=True, metavar="NAME=TEXT", help="What ${values.NAME} stands for.")
@click.option("--prune/--no-prune", default=True, help="Remove what is not in it any more [prune].")
@click.option("--allow-rewind", is_flag=True, help="Follow a history that was rewritten.")
@click.option("--allow-mass-prune", is_flag=True, help="Let one revision remove most objects.")
@click.option("--wait/--no-wait", default=True, help="Wait until it is applied [wait].")
@click.option("--timeout", type=DURATION, default=300.0, metavar="5m", help="Give up waiting after this long [5m].")
@pass_node
def add(node: Node, /, name: str, wait: bool, timeout: float, **given: Any) -> int:
    """Write a Source object, as `apply` would, and wait until its newest revision is applied.

    Exit code 0: applied (or accepted: --no-wait, or no agent yet); 1: refused or stalled; 3: not in time.
    """
    from reconciler.engine.doorbell import ring
    from reconciler.model.identity import FINALIZERS
    from reconciler.store.applied import keep_applied
    from reconciler.store.functions import HAND, Manager, Wanted, apply_specs

    key = Key(Kind.SOURCE, checked_name(name))
    spec = checked_spec(**given)
    store = node.store_to_write()
    apply_specs(store, [Wanted(key, spec)], Manager(HAND), finalizers=FINALIZERS)
    keep_applied(node.paths.root, store, [key])
    ring(node.paths.state)
    if not has_agent(node):
        say(f"Accepted: {key} waits for an agent.")
        say(NO_AGENT)
        return 0
    if not wait:
        say(f"Accepted: {key}.")
        return 0
    return sync_now(node, store, key, timeout)


def checked_spec(git_url: str | None, folder: str | None, values: tuple[str, ...], **given: Any) -> dict[str, Any]:
    """The spec that the options of `add` describe; raises `Invalid` with all that is wrong with it."""
    from reconciler.model.kinds.checking import check_spec
    from reconciler.model.problems import shown

    spec: dict[str, Any] = {"git": {"url": git_url}} if git_url else {}
    if folder:
        spec["folder"] = os.path.abspath(folder)
    ref = {name: given[name] for name in ("branch", "tag", "commit") if given[name]}
    if (ref or given["secret"]) and not git_url:
        raise Invalid("--branch, --tag, --commit and --secret are for --git", advice="Leave them out.")
    if ref:
        spec["git"]["ref"] = ref
    if given["secret"]:
        spec["git"]["auth"] = {"secret": given["secret"]}
    spec |= {name: given[name] for name in ("path", "interval") if given[name]}
    if values:
        spec["values"] = dict(value_of(text) for text in values)
    switches = {"allowRewind": given["allow_rewind"], "allowMassPrune": given["allow_mass_prune"]}
    spec |= {name: True for name, on in switches.items() if on} | ({} if given["prune"] else {"prune": False})
    if problems := check_spec(Kind.SOURCE, spec):
        first, *more = [f"{shown(one.path)}: {one.message}; {one.advice}" for one in problems]
        raise Invalid("; ".join([first, *more]), advice="See: reconciler source add --help")
    return spec


def value_of(text: str) -> tuple[str, str]:
    """`NAME=TEXT` in two; raises `Invalid`."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise Invalid(f"--value {text!r} gives no name and text", advice="Write --value site=north.")
    return name, value


@command.command("sync")
@click.argument("name", shell_complete=completing.sources)
@click.option("--timeout", type=DURATION, default=300.0, metavar="5m", help="Give up waiting after this long [5m].")
@pass_node
def sync(node: Node, name: str, timeout: float) -> int:
    """Fetch now, and wait until what the source says is so.

    Exit code 0: it is; 1: it could not be fetched, was refused, or something is stalled; 3: not in time.
    """
    store, source = source_to_write(node, name)
    if not has_agent(node):
        raise Unavailable(NO_AGENT, advice="Or once: reconciler agent --once")
    if source.spec.get("suspend") or is_suspended(source, node.clock.wall()):
        raise Denied(f"{source.key} is suspended", advice=f"First: reconciler source resume {name}")
    return sync_now(node, store, source.key, timeout)


@command.command("suspend")
@click.argument("name", shell_complete=completing.sources)
@click.option("--for", "seconds", type=DURATION, metavar="2h", help="For so long [until resumed].")
@click.option("--reason", default="", metavar="TEXT", help="Shown to whoever wonders.")
@pass_node
def suspend(node: Node, name: str, seconds: float | None, reason: str) -> int:
    """Fetch and apply nothing of a source for a while; what runs goes on."""
    now = node.clock.wall()
    asked = {"until": None if seconds is None else now + seconds, "reason": reason, "at": now}
    ask(node, *source_to_write(node, name), {"suspend": asked})
    say(f"source/{name}: suspended{'' if seconds is None else f' for {seconds:g} s'}.")
    return 0


@command.command("resume")
@click.argument("name", shell_complete=completing.sources)
@pass_node
def resume(node: Node, name: str) -> int:
    """End what `suspend` and `rollback` asked for: the newest revision is applied again."""
    store, source = source_to_write(node, name)
    ended = [what for what in ("suspend", "rollback") if what in source.local]
    ask(node, store, source, {"suspend": None, "rollback": None, "sync": {"id": secrets.token_hex(8)}})
    words = {"suspend": "the suspension", "rollback": "the rollback"}
    say(f"source/{name}: {' and '.join(words[one] for one in ended) + ' ended' if ended else 'nothing to resume'}.")
    if source.spec.get("suspend"):
        say(f"source/{name}: its spec says suspend: true; change it there: {source.origin or source.manager}")
    return 0


@command.command("ls")
@output_option(*FORMATS)
@pass_node
@click.pass_context
def ls(context: click.Context, node: Node, output: str | None) -> int:
    """List the sources: as `get sources`."""
    from reconciler.cli.get import command as get

    code: int = context.invoke(get, kind="source", name=None, selector="", watch=False, output=output)
    return code


def has_agent(node: Node) -> bool:
    """Whether an agent runs on the node."""
    from reconciler.cli.status import engine_of

    return engine_of(node).startswith("the agent")


def source_to_write(node: Node, name: str) -> tuple[ObjectStore, Object]:
    """The store and the Source of that name; raises `NotFound`."""
    source = node.wanted(Key(Kind.SOURCE, checked_name(name.removeprefix("source/"))))
    return node.store_to_write(), source


def is_suspended(source: Object, now: float) -> bool:
    """Whether a person at the node suspended it, and that is not over."""
    asked = source.local.get("suspend")
    return asked is not None and (asked["until"] is None or asked["until"] > now)


def ask(node: Node, store: ObjectStore, obj: Object, changes: dict[str, Any]) -> None:
    """Durably: what is asked beside the spec, then the doorbell."""
    from reconciler.engine.doorbell import ring
    from reconciler.store.functions import modify

    modify(store, obj.key, lambda one: with_local(one, changes))
    ring(node.paths.state)


def sync_now(node: Node, store: ObjectStore, key: Key, timeout: float) -> int:
    """Ask for a fetch and wait until all that it brings is so; the exit code."""
    token = secrets.token_hex(8)
    ask(node, store, node.wanted(key), {"sync": {"id": token}})
    return follow(node, store, key, timeout, lambda source: source.status.get("observedSync") == token)


def follow(node: Node, store: ObjectStore, key: Key, timeout: float, answered: Callable[[Object], bool]) -> int:
    """Wait until the Source has answered and is at rest, then for its objects; say how it ended; the exit code."""
    from reconciler.cli.columns import message
    from reconciler.cli.delete import settle
    from reconciler.cli.verdicts import exit_code, tell_failures
    from reconciler.decide.source import short
    from reconciler.decide.summary import settled, stalled
    from reconciler.wiring import judge

    began = node.clock.monotonic()
    while True:
        version = store.version()
        source = node.wanted(key)
        if answered(source) and (settled(source) or stalled(source) or source.status.get("lastError")):
            break
        left = began + timeout - node.clock.monotonic()
        if left <= 0:
            complain_in_words(f"{key}: timed out: not applied after {timeout:g} s", [message(source)])
            return TIMED_OUT
        store.wait(version, min(POLL_SECONDS, left))
    if not settled(source):
        tell_failures([source], {key})
        return 1
    keys = frozenset({key, *(Key.parse(text) for text in source.status.get("inventory", ()))})
    verdict = judge(store, keys, supervised=True)
    if verdict.pending:
        verdict = settle(node, store, keys, max(0.0, began + timeout - node.clock.monotonic()))
    bad = verdict.stalled | verdict.pending
    tell_failures(store.list() if bad else (), bad)
    revision = short(str(source.status.get("observedRevision", "")))
    seconds = node.clock.monotonic() - began
    word = "Not ready" if bad else "Synced"
    say(f"{word}: {key} at {revision}, {len(keys) - 1} objects, in {seconds:.1f} s.")
    return exit_code(verdict)
