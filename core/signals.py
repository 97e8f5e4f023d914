"""What telemetry tells, by name: spans, metrics, and the attributes that either may carry. Nothing else is ever sent.

Rules of this file: an attribute holds a name, a number, a digest or a word from a closed set, never a text that came
from outside (a message, a URL, a command, an environment): that is how no secret gets in. Names are OpenTelemetry's
(semantic conventions) where there is one, else `reconciler.…`. docs/telemetry.md has these tables; a test compares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from typing import Final, NamedTuple

from core.errors import AgentError

Value = str | int | float | bool
Reading = Callable[[], Iterable[tuple[float, Mapping[str, Value]]]]
"""Gives a gauge's values now, each with its attributes; called by telemetry's own thread."""


class Instrument(Enum):
    """How a metric is kept."""

    COUNTER = "counter"
    HISTOGRAM = "histogram"
    GAUGE = "gauge"


class Metric(NamedTuple):
    """One metric; `attributes` are keywords of `ATTRIBUTES`."""

    instrument: Instrument
    unit: str
    help: str
    attributes: tuple[str, ...] = ()


ATTRIBUTES: Final[Mapping[str, str]] = {
    "kind": "reconciler.object.kind",
    "name": "reconciler.object.name",
    "generation": "reconciler.object.generation",
    "manager": "reconciler.object.manager",
    "state": "reconciler.object.state",
    "outcome": "reconciler.outcome",
    "action": "reconciler.action",
    "phase": "reconciler.phase",
    "reason": "reconciler.reason",
    "lane": "reconciler.queue.lane",
    "objects": "reconciler.objects",
    "source": "reconciler.source.name",
    "revision": "vcs.ref.head.revision",
    "error": "error.type",
    "container_id": "container.id",
    "container_name": "container.name",
    "image_name": "container.image.name",
    "digest": "oci.manifest.digest",
    "layer": "reconciler.layer.digest",
    "layers": "reconciler.image.layers",
    "driver": "reconciler.snapshotter",
    "size": "reconciler.transfer.size",
    "fetched": "reconciler.transfer.fetched",
    "host": "server.address",
    "exit_code": "process.exit.code",
    "mount": "system.filesystem.mountpoint",
    "space": "system.filesystem.state",
}
"""The keyword in our code → the attribute's name on the wire."""

SPANS: Final[Mapping[str, str]] = {
    "apply": "a person's apply: from the plan's commit until all is ready, or not waited for",
    "source.fetch": "one look of a Source at its repository or folder",
    "source.load": "all manifests of a revision read and checked",
    "source.apply": "one revision of a Source made the node's wish",
    "reconcile": "one look at one object that led to something: events `observed` and `planned`, then its actions",
    "image.pull": "an image fetched, verified, unpacked and remembered",
    "image.check": "the registry asked what a tag means now",
    "image.fetch_layer": "one blob brought from the registry",
    "image.unpack_layer": "one layer applied in a worker process",
    "sandbox.create": "a sandbox made and started",
    "container.prepare": "an attempt's root, look-ups and bundle made",
    "container.create": "the runtime makes the container",
    "container.start": "the container's own program begins",
    "container.resume": "what something else has frozen is told to go on",
    "container.restore": "a container goes on from a checkpoint: its root laid, or its memory taken up",
    "container.hook": "a hook of a container begun",
    "container.stop": "a container asked to end",
    "container.update": "limits changed in place",
    "container.delete": "every trace of an attempt removed",
    "volume.create": "a volume's folder made",
    "record": "something written to the store before the deed",
    "remove": "an image, sandbox, volume or log removed",
    "act": "any other action of the engine; `reconciler.action` says which",
}

METRICS: Final[Mapping[str, Metric]] = {
    "reconciler.reconcile.duration": Metric(
        Instrument.HISTOGRAM, "s", "Time of one look at one object, with what it did.", ("kind", "outcome")
    ),
    "reconciler.action.duration": Metric(Instrument.HISTOGRAM, "s", "Time of one action.", ("action", "error")),
    "reconciler.retries": Metric(
        Instrument.COUNTER, "{failure}", "Actions that failed and are tried again.", ("kind", "phase", "error")
    ),
    "reconciler.queue.depth": Metric(Instrument.GAUGE, "{object}", "Objects that wait to be looked at.", ("lane",)),
    "reconciler.queue.latency": Metric(
        Instrument.HISTOGRAM, "s", "How long an object that was due waited for a worker.", ("lane",)
    ),
    "reconciler.objects.count": Metric(Instrument.GAUGE, "{object}", "Objects by kind and state.", ("kind", "state")),
    "reconciler.container.exits": Metric(
        Instrument.COUNTER, "{exit}", "Containers whose first process ended.", ("container_name", "reason")
    ),
    "reconciler.container.restarts": Metric(
        Instrument.COUNTER, "{restart}", "Containers started again after an exit.", ("container_name",)
    ),
    "reconciler.transfer.fetched": Metric(Instrument.COUNTER, "By", "Bytes that came from registries.", ("host",)),
    "reconciler.source.revisions": Metric(
        Instrument.COUNTER, "{revision}", "Revisions of Sources applied or refused.", ("source", "outcome")
    ),
    "reconciler.store.commit.duration": Metric(Instrument.HISTOGRAM, "s", "Time of one durable commit."),
    "system.filesystem.usage": Metric(
        Instrument.GAUGE, "By", "Bytes of the file system that holds root.", ("mount", "space")
    ),
    "reconciler.telemetry.dropped": Metric(
        Instrument.COUNTER, "{span}", "Spans that were never sent: the collector is gone, slow, or refused them."
    ),
}
SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0)
"""The bounds of every histogram's buckets."""
LONGEST: Final = 256
"""Characters of an attribute's value."""


def error_word(error: BaseException) -> str:
    """The category of an error of ours, the class of another's: never its message."""
    return error.category.value if isinstance(error, AgentError) else type(error).__name__
