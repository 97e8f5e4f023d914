"""Waiting, live: one line an object that is not there yet, with the stage that holds it up named.

Rules of this file: on a terminal the lines are drawn anew in place; elsewhere a line is printed when its stage changes,
and mere numbers at most every two seconds. All of it goes to stderr.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final, TextIO

from core.clock import Clock, parse_timestamp
from reconciler.cli.columns import message
from reconciler.cli.terminal import LiveLines, is_terminal, printable
from reconciler.cli.texts import amount
from reconciler.decide.references import references
from reconciler.decide.summary import condition, is_true, settled
from reconciler.model.identity import Key, Kind
from reconciler.model.objects import Object

PLAIN_SECONDS: Final = 2.0
RATE_SECONDS: Final = 1.0
LOOK_SECONDS: Final = 1.0
"""How often the store is looked at where lines are not drawn in place."""
_NUMBERS: Final = re.compile(r"  [0-9.]+ [kMGT]?B/s|[0-9.]+ *([kMGT]?B|%|s)?")


def concerned(objects: Iterable[Object], keys: Collection[Key]) -> list[Object]:
    """The objects of `keys`, and those that they own or need: what a wait for `keys` is about."""
    every = {obj.key: obj for obj in objects}
    needed = set(keys)
    todo = [every[key] for key in keys if key in every]
    while todo:
        for key in references(todo.pop()) - needed:
            needed.add(key)
            todo += [every[key]] if key in every else []
    return [obj for key, obj in every.items() if key in needed or not obj.owners.isdisjoint(needed)]


def unfinished(obj: Object) -> bool:
    """Whether a wait is still about this object."""
    return not settled(obj)


class Progress:
    """Draws the wait for `keys`; `tick` is called often, `clear` at the end."""

    def __init__(
        self, objects: Callable[[], Iterable[Object]], keys: Collection[Key], clock: Clock, stream: TextIO | None = None
    ) -> None:
        self._objects = objects
        self._keys = keys
        self._clock = clock
        self._stream = stream or sys.stderr
        self._live = LiveLines(self._stream) if is_terminal(self._stream) else None
        self._rates: dict[Key, _Rate] = {}
        self._said: dict[Key, tuple[str, float]] = {}
        self._looked = float("-inf")

    def tick(self) -> None:
        """Show how far things are."""
        now = self._clock.monotonic()
        if self._live is None and now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        waiting = [obj for obj in concerned(self._objects(), self._keys) if unfinished(obj)]
        texts = {obj.key: self._line(obj, now) for obj in waiting if obj.kind is not Kind.SNAPSHOT}
        if self._live is not None:
            self._live.draw(list(texts.values()))
        else:
            self._print(texts, now)

    def clear(self) -> None:
        """Take the lines away."""
        if self._live is not None:
            self._live.clear()

    def _line(self, obj: Object, now: float) -> str:
        rate = self._rates.setdefault(obj.key, _Rate())
        return f"{obj.name:<10} {obj.kind.value.lower():<10} {stage(obj, rate.of(fetched(obj), now))}"

    def _print(self, texts: Mapping[Key, str], now: float) -> None:
        for key, text in texts.items():
            before, at = self._said.get(key, ("", float("-inf")))
            moved = _NUMBERS.sub("", text) != _NUMBERS.sub("", before)
            if moved or (text != before and now - at >= PLAIN_SECONDS):
                self._stream.write(text + "\n")
                self._said[key] = (text, now)
        self._stream.flush()


class _Rate:
    """Bytes a second over the last second or more."""

    def __init__(self) -> None:
        self._bytes = 0
        self._at = 0.0
        self._rate = 0.0

    def of(self, total: int, now: float) -> float:
        """The rate, now that `total` bytes are there."""
        if self._at == 0.0 or total < self._bytes:
            self._bytes, self._at, self._rate = total, now, 0.0
        elif now - self._at >= RATE_SECONDS:
            self._rate = (total - self._bytes) / (now - self._at)
            self._bytes, self._at = total, now
        return self._rate


def fetched(obj: Object) -> int:
    """Bytes of an image's layers that are here."""
    return sum(_here(layer) for layer in obj.status.get("layers", ()))


def _here(layer: Mapping[str, Any]) -> int:
    return int(layer["size"] if layer["state"] in ("held", "applied") else layer.get("fetched", 0))


def stage(obj: Object, rate: float) -> str:
    """What an object is at, in a few words; `rate` in bytes a second."""
    if obj.deleted is not None:
        return f"deleting: {text}" if (text := _wait_since(obj, obj.deleted)) else "deleting"
    if obj.status.get("observedGeneration") != obj.generation:
        return "pending"
    if obj.kind is Kind.IMAGE and obj.status.get("layers") and not obj.status.get("lastError"):
        return _layers(obj, rate)
    text = printable(" ".join(message(obj).split()))
    going = condition(obj.status, "Reconciling")
    if obj.status.get("lastError") or (going is not None and going["reason"] == "Progressing"):
        return text
    return f"{'stalled' if is_true(obj.status, 'Stalled') else 'waiting'}: {text or 'not ready'}"


def _wait_since(obj: Object, moment: float) -> str:
    """What it waits for, unless that was said before `moment` and so is about something else."""
    for kind in ("Stalled", "Reconciling"):
        found = condition(obj.status, kind)
        if found is not None and found["status"] == "True" and parse_timestamp(found["lastTransitionTime"]) >= moment:
            return printable(found["message"])
    return ""


def _layers(obj: Object, rate: float) -> str:
    layers = obj.status["layers"]
    total = sum(int(layer["size"]) for layer in layers)
    here = fetched(obj)
    name = str(obj.spec.get("ref", obj.name)).rsplit("/", 1)[-1]
    done = sum(layer["state"] == "applied" for layer in layers)
    parts = [
        name,
        f"{done}/{len(layers)} layers",
        f"{100 * here // total if total else 100} %",
        f"{_share(here, total)}",
        f"{amount(int(rate))}/s" if rate else "",
    ]
    return "  ".join(filter(None, parts))


def _share(here: int, total: int) -> str:
    """`18.2/29.9 MB`, both in the unit of the whole."""
    whole = amount(total)
    unit = whole.split()[1]
    factor = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}[unit]
    return f"{here}/{whole}" if unit == "B" else f"{here / factor:.1f}/{whole}"
