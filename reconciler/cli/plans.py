"""Plans as text: the table that `apply` shows, the fields that `diff` shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from reconciler.cli.proposal import Proposal
from reconciler.cli.terminal import paint, printable
from reconciler.cli.texts import amount, counted, table
from reconciler.decide.changes import Op, Row
from reconciler.decide.edits import Edit

COLOURS: Final = {
    Op.CREATE: "green",
    Op.CHANGE: "yellow",
    Op.REPLACE: "yellow",
    Op.REMOVE: "red",
    Op.NOTHING: "dim",
}
HEAD: Final = ("OP", "OBJECT", "FETCH", "RESTARTS", "CAUSE")


def plan_table(proposal: Proposal) -> list[str]:
    """A line for each object of which something becomes, and a closing line with the plan's id."""
    if not proposal.changes:
        return [f"Nothing to change: {counted(len(proposal.rows), 'object')}. Plan {proposal.id}."]
    rows = [(row.op.value, row.key, amount(row.fetch), row.restarts, row.cause) for row in proposal.changes]
    head, *lines = table(HEAD, rows).splitlines()
    painted = [
        paint(line[: len(row.op)], COLOURS[row.op]) + line[len(row.op) :]
        for row, line in zip(proposal.changes, lines, strict=True)
    ]
    return [head, *painted, closing(proposal)]


def closing(proposal: Proposal) -> str:
    """`Plan 3f2a91bc: 1 create, 2 replace, 4 nothing; 18.2 MB to fetch; 2 restarts.`"""
    counts = ", ".join(f"{count} {op}" for op in Op if (count := proposal.count(op))) or "nothing given"
    fetches = [row.fetch for row in proposal.rows]
    fetch = amount(None if None in fetches else sum(size for size in fetches if size is not None))
    restarts = counted(sum(row.restarts for row in proposal.rows), "restart")
    return f"Plan {proposal.id}: {counts}; to fetch: {fetch}; {restarts}."


def diff_lines(rows: Sequence[Row]) -> Iterator[str]:
    """Each object of which something becomes, with its changed fields below it."""
    for row in rows:
        cost = [f"fetch {amount(row.fetch)}"] if row.fetch != 0 else []
        cost += [counted(row.restarts, "restart")] if row.restarts else []
        place = f"  at {row.origin}" if row.origin is not None and row.op is not Op.REMOVE else ""
        about = "; ".join(filter(None, (row.cause, *cost)))
        yield paint(f"{row.op.value:<7}", COLOURS[row.op]) + f"  {row.key}{place}" + (f"  ({about})" if about else "")
        for edit in row.edits:
            yield from _edit(edit)


def _edit(edit: Edit) -> Iterator[str]:
    yield f"  ± {printable(edit.path)}"
    if edit.old is not None:
        yield paint(f"  - {printable(edit.old)}", "red")
    if edit.new is not None:
        yield paint(f"  + {printable(edit.new)}", "green")
