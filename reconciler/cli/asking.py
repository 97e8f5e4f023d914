"""How far the engine is with what a command asked of it: one line, drawn in place or now and then."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Final

from core.clock import Clock
from reconciler.cli.terminal import LiveLines, is_terminal, printable
from reconciler.cli.texts import amount

PLAIN_SECONDS: Final = 2.0


class Asking:
    """Draws what the engine tells of its work; `tick` is called often, `clear` at the end."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._live = LiveLines(sys.stderr) if is_terminal(sys.stderr) else None
        self._said = ("", float("-inf"))

    def tick(self, fields: Mapping[str, Any]) -> None:
        """Show it."""
        text = progress_line(fields)
        if self._live is not None:
            self._live.draw([text] if text else [])
        elif text and text != self._said[0] and self._clock.monotonic() - self._said[1] >= PLAIN_SECONDS:
            self._said = (text, self._clock.monotonic())
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def clear(self) -> None:
        """Take the line away."""
        if self._live is not None:
            self._live.clear()


def progress_line(fields: Mapping[str, Any]) -> str:
    """`waiting …`, or `check  3/17 blobs  41 %  1.2/2.9 GB  sha256:ab…`; empty for nothing."""
    if "waiting" in fields:
        return f"waiting {fields['waiting']}"
    if "bytes" not in fields:
        return ""
    if "of" not in fields:
        return printable(f"{fields['doing']}  {amount(int(fields['bytes']))}  {fields.get('item', '')}").rstrip()
    here, total = int(fields["bytes"]), int(fields["of"])
    share = f"{100 * here // total if total else 100} %"
    return printable(
        f"{fields['doing']}  {share}  {amount(here)} of {amount(total)}  {fields.get('item', '')}"
    ).rstrip()
