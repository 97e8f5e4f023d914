"""A command as the beginning of a trace: what it asks for goes on from it, in whatever process does the work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from core import telemetry
from reconciler.cli.context import Node


@contextmanager
def traced(node: Node, name: str) -> Iterator[None]:
    """A span called `name` around the block, in the trace that `TRACEPARENT` (W3C) names, if it does.

    Raises what reading the configuration raises.
    """
    from reconciler.wiring import listen

    listen(node.paths, node.config(), node.clock)
    try:
        with telemetry.span(name, parent=os.environ.get("TRACEPARENT", "")):
            yield
    finally:
        telemetry.shutdown(2.0)
