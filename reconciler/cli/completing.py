"""What the shell offers after TAB: kinds, names, containers. Imports nothing that `get` does not need.

Rules of this file: a completer reads the node's store as it is, and offers nothing when it cannot: a TAB makes nothing
and complains of nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from core.errors import AgentError
from reconciler.cli.context import Node
from reconciler.model.identity import Kind, kind_of
from reconciler.model.objects import Object

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def kinds(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """`container`, `image`, … and after a slash the names: for commands that take both KIND NAME and KIND/NAME."""
    if "/" in incomplete:
        return objects(ctx, param, incomplete)
    more = ("all", "events") if ctx.info_name == "get" else ()
    return _those([*(kind.value.lower() for kind in Kind), *more], incomplete)


def names(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of the kind that stands before."""
    return _names_of(ctx, str(ctx.params.get("kind") or ""), incomplete)


def objects(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """`KIND/NAME` of all objects."""
    return _those((str(obj.key) for obj in _objects(ctx)), incomplete)


def several(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """For `[KIND NAME… | KIND/NAME…]`: after a kind its names, else kinds and objects."""
    before = ctx.params.get(param.name or "") or ()
    if before and "/" not in before[0]:
        return _names_of(ctx, before[0], incomplete)
    return objects(ctx, param, incomplete) if before or "/" in incomplete else kinds(ctx, param, incomplete)


def containers(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of containers."""
    return _those((obj.name for obj in _objects(ctx, Kind.CONTAINER)), incomplete)


def sources(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of Sources."""
    return _those((obj.name for obj in _objects(ctx, Kind.SOURCE)), incomplete)


def revisions(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of the revisions that are kept."""
    return _those((obj.name for obj in _objects(ctx, Kind.REVISION)), incomplete)


def sets(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Names of sets that have members."""
    managers = sorted({obj.manager for obj in _objects(ctx) if obj.manager.startswith("set/")})
    return _those((manager.partition("/")[2] for manager in managers), incomplete)


def files(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Whatever the shell finds."""
    from click.shell_completion import CompletionItem  # only who completes pays for it

    return [CompletionItem(incomplete, type="file")]


def _those(found: Iterable[str], incomplete: str) -> list[str]:
    return [one for one in found if one.startswith(incomplete)]


def _names_of(ctx: click.Context, kind: str, incomplete: str) -> list[str]:
    try:
        return _those((obj.name for obj in _objects(ctx, kind_of(kind))), incomplete)
    except AgentError:
        return []  # no kind: nothing to offer


def _objects(ctx: click.Context, kind: Kind | None = None) -> list[Object]:
    given = ctx.find_root().params
    node = Node(given.get("root"), given.get("state"), given.get("config"))
    try:
        store = node.store()
        return list(store.list(kind)) if store is not None else []
    except (AgentError, OSError):
        return []  # no right to read it, or a damaged store: who asks a real question is told
