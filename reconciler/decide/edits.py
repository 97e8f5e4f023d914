"""What differs between an object as it is and as it is wanted: one edit a field, with nothing secret in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from core.values import dataclass
from reconciler.model.identity import Kind
from reconciler.model.objects import Object

MASK: Final = "***"
LONGEST: Final = 200
_NAMES: Final = ("name", "path", "container")
"""By what the items of a list are told apart, where all of them have it."""
_ABSENT: Final = object()


@dataclass(frozen=True, slots=True)
class Edit:
    """One changed field; `old` None: it is new, `new` None: it goes. Both are texts for a person."""

    path: str
    old: str | None
    new: str | None

    @property
    def field(self) -> str:
        """The field in short: `spec.env` of `spec.env[LOG].value`."""
        parts = self.path.split("[")[0].split(".")
        return ".".join(parts[: 3 if parts[0] == "metadata" else 2])


def edits_between(old: Object, new: Object) -> tuple[Edit, ...]:
    """All edits that make `old` be wanted as `new`, in the order of the new one's fields."""
    secret = new.kind is Kind.SECRET
    return (
        *_walk("spec", old.spec, new.spec, secret=secret),
        *_walk("metadata.labels", old.labels, new.labels),
        *_walk("metadata.annotations", old.annotations, new.annotations),
        *_walk("metadata.manager", old.manager, new.manager),
    )


def _walk(path: str, old: Any, new: Any, *, secret: bool = False) -> Iterator[Edit]:
    if old == new:
        return
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        yield from _pairs(path, old, new, secret=secret)
    elif (before := _named(old)) is not None and (after := _named(new)) is not None:
        kept = [", ".join(name for name in one if name in before and name in after) for one in (before, after)]
        if kept[0] != kept[1]:
            yield Edit(f"{path} (order)", *kept)
        for name in dict.fromkeys((*after, *before)):
            yield from _walk(f"{path}[{name}]", before.get(name, _ABSENT), after.get(name, _ABSENT))
    else:
        yield Edit(path, _text(path, old, secret=secret), _text(path, new, secret=secret))


def _pairs(path: str, old: Mapping[str, Any], new: Mapping[str, Any], *, secret: bool) -> Iterator[Edit]:
    for name in dict.fromkeys((*new, *old)):
        plain = name.replace("-", "").replace("_", "").isalnum()
        below = f"{path}.{name}" if plain else f'{path}["{name}"]'
        was, will = old.get(name, _ABSENT), new.get(name, _ABSENT)
        deep = [{} if value is _ABSENT else value for value in (was, will)]
        if any(isinstance(value, Mapping) and value for value in deep) and all(isinstance(v, Mapping) for v in deep):
            yield from _pairs(below, deep[0], deep[1], secret=secret) if deep[0] != deep[1] else ()
        else:
            yield from _walk(below, was, will, secret=secret)


def _named(value: Any) -> dict[str, Any] | None:
    """A list's items by their names; None for what is no list of uniquely named mappings."""
    if value is _ABSENT or isinstance(value, str) or not isinstance(value, Sequence):
        return None
    if not all(isinstance(item, Mapping) for item in value):
        return None
    for key in _NAMES:
        names = [item.get(key) for item in value]
        if all(isinstance(name, str) for name in names) and len(set(names)) == len(names):
            return dict(zip(names, value, strict=True))
    return None


def _text(path: str, value: Any, *, secret: bool) -> str | None:
    if value is _ABSENT:
        return None
    if secret:
        return MASK
    if path.endswith(("fileContent", "seccompContent", "apparmorContent")):
        return f"content with sha256 {hashlib.sha256(str(value).encode()).hexdigest()[:12]}"
    text = value if isinstance(value, str) and value.isprintable() and value else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}… ({len(text)} characters)"
