"""The configuration told: each key with its kind, its default and its meaning, as YAML, as a page, as plain values.

Rules of this file: everything here is made from the model (through its JSON Schema); nothing is told that is not there.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Final

from pydantic import BaseModel

from core.transfer.proxies import masked
from core.values import dataclass
from reconciler.model.config import RESTART, Config
from reconciler.model.kinds.schema import DIALECT

ANY: Final = "NAME"
"""Stands in a path for whatever name an entry has."""
_WIDTH: Final = 100
_AFTER: Final = "In force after a restart of the agent."
_UNITS: Final = ((3600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms"))

Path = tuple[str, ...]
_Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """One key. `section`: it holds others, which follow it; `default` in plain values, None: there is none."""

    path: Path
    kind: str
    default: Any
    meaning: str
    after_restart: bool
    section: bool = False

    @property
    def key(self) -> str:
        """`transfer.proxy.http`."""
        return ".".join(self.path)


def settings() -> Iterator[Setting]:
    """Every key, each section before what is in it, in the order of the model."""
    whole = Config.model_json_schema()
    yield from _below(whole, whole["$defs"], (), after_restart=False)


def _below(section: _Json, known: _Json, path: Path, *, after_restart: bool) -> Iterator[Setting]:
    for name, found in section["properties"].items():
        after = after_restart or bool(found.get(RESTART))
        here = (*path, name)
        if "$ref" in found:
            below = _named(found, known)
            meaning = _line(found.get("description") or below["description"])
            yield Setting(here, "section", None, meaning, after, section=True)
            yield from _below(below, known, here, after_restart=after)
            continue
        yield Setting(here, _kind(found), _default(found), _line(found.get("description", "")), after)
        entry: _Json = next(iter(found.get("patternProperties", {}).values()), {})
        if "$ref" in entry:
            below = _named(entry, known)
            yield Setting((*here, ANY), "section", None, _line(below["description"]), after, section=True)
            yield from _below(below, known, (*here, ANY), after_restart=after)


def _named(found: _Json, known: _Json) -> _Json:
    named: _Json = known[found["$ref"].rpartition("/")[2]]
    return named


def _line(text: str) -> str:
    return " ".join(text.split())


def _default(found: Mapping[str, Any]) -> Any:
    default = found.get("default")
    is_text = found.get("type") == "string"
    return duration(default) if is_text and isinstance(default, float) else default


def _kind(found: Mapping[str, Any]) -> str:
    """What may be written, in words."""
    if "const" in found:
        return f"`{found['const']}`"
    if "enum" in found:
        return " or ".join(f"`{word}`" for word in found["enum"])
    if "anyOf" in found:
        return _kind(next(one for one in found["anyOf"] if one.get("type") != "null"))
    match found.get("type"):
        case "boolean":
            return "true or false"
        case "integer":
            bounds = (found.get("minimum"), found.get("maximum"))
            return "number" if None in bounds else f"number, {bounds[0]} to {bounds[1]}"
        case "array":
            return f"list of {_kind(found['items'])}s"
        case "object":
            return "entries by name"
        case _:
            return _text_kind(found)


def _text_kind(found: _Json) -> str:
    if isinstance(found.get("default"), float):
        return "duration"
    return "path" if found.get("pattern") == "^/" else "text"


def duration(seconds: float) -> str:
    """`1h30m`, as it is read."""
    left, parts = round(seconds * 1000), []
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


def plain(value: Any) -> Any:
    """The configuration, or a part of it, as the plain values that a file would have: durations are text."""
    if isinstance(value, BaseModel):
        fields = type(value).model_fields.items()
        return {field.alias or name: plain(getattr(value, name)) for name, field in fields}
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, tuple):
        return [plain(one) for one in value]
    return duration(value) if isinstance(value, float) else value


def flat(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Each value that holds no other, with its path; an empty mapping is one."""
    if isinstance(value, Mapping) and value:
        for name, one in value.items():
            yield from flat(one, (*path, name))
    else:
        yield path, value


def without_passwords(value: Any) -> Any:
    """Plain values whose URLs, with a scheme or without, show nobody's login."""
    if isinstance(value, Mapping):
        return {name: without_passwords(one) for name, one in value.items()}
    if isinstance(value, list):
        return [without_passwords(one) for one in value]
    is_url = isinstance(value, str) and "@" in value and ":" in value and not value.startswith("/")
    return masked(value) if is_url else value


def after_restart(path: Path) -> bool:
    """Whether a running agent does not take up a change of the value at `path`."""
    return any(_covers(marked, path) for marked in _marked(Config, ()))


def _marked(model: type[BaseModel], path: Path) -> Iterator[Path]:
    """The paths that are marked, read from the model itself: an agent that runs makes no schema."""
    for name, field in model.model_fields.items():
        here = (*path, field.alias or name)
        if isinstance(field.json_schema_extra, dict) and RESTART in field.json_schema_extra:
            yield here
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _marked(field.annotation, here)


def _covers(setting: Path, path: Path) -> bool:
    """Whether `path` is that setting, or lies in it, or holds it."""
    return all(known in (name, ANY) for known, name in zip(setting, path, strict=False))


# As YAML.


def default_text() -> str:
    """A configuration file with every key, its meaning and its default."""
    return "".join(_texts())


def _texts() -> Iterator[str]:
    yield "# Every key of the configuration with its default. What is left out, or null, is the default.\n"
    for one in settings():
        depth = len(one.path) - 1
        indent = "  " * depth
        if ANY in one.path:  # an example: there is no entry by default
            yield f"#{indent}{_pair(one)}\n"
        else:
            gap = "\n" if depth == 0 else ""
            yield gap + "".join(f"{indent}# {line}\n" for line in _wrapped(one, depth))
            yield f"{indent}{_pair(one)}\n"


def _pair(one: Setting) -> str:
    value = "" if one.section else f" {json.dumps(one.default, ensure_ascii=False)}"
    return f"{one.path[-1]}:{value}"


def _wrapped(one: Setting, depth: int) -> list[str]:
    told = [one.meaning, *([_AFTER] if one.after_restart and not one.section else [])]
    return textwrap.wrap(" ".join(told), _WIDTH - 2 * depth)


# As a page.


def reference() -> str:
    """The part of docs/configuration.md that tells every key: a table a section."""
    return "\n".join(_rows())


def _rows() -> Iterator[str]:
    every = list(settings())
    yield from _table("Top level", "", [one for one in every if len(one.path) == 1 and not one.section])
    for section in (one for one in every if one.section):
        below = [one for one in every if one.path[:-1] == section.path and not one.section]
        yield from _table(f"`{section.key}`", section.meaning, below)


def _table(title: str, meaning: str, rows: list[Setting]) -> Iterator[str]:
    yield f"### {title}\n"
    if meaning:
        yield f"{meaning}\n"
    yield "| Key | Value | Default | Meaning |"
    yield "|---|---|---|---|"
    for one in rows:
        default = "" if one.default is None else f"`{json.dumps(one.default, ensure_ascii=False)}`".replace('"', "")
        meaning = f"{one.meaning} {_AFTER}" if one.after_restart else one.meaning
        yield f"| `{one.path[-1]}` | {one.kind} | {default} | {meaning} |"
    yield ""


# As JSON Schema.


def config_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of one file; every key may be null, which is its default."""
    whole = Config.model_json_schema()
    for section in (whole, *whole["$defs"].values()):
        for name, found in section["properties"].items():
            if name != "version":
                section["properties"][name] = _or_null(found)
    return {"$schema": DIALECT, **whole, "title": "reconciler configuration", "required": ["version"]}


def _or_null(found: dict[str, Any]) -> dict[str, Any]:
    default = found.pop("default", None)
    told: dict[str, Any] = {key: found.pop(key) for key in ("title", "description", RESTART) if key in found}
    if isinstance(default, float):
        default = duration(default)
    choices = [one for one in found.get("anyOf", [found]) if one.get("type") != "null"]
    simple = {} if isinstance(default, Mapping) else {"default": default}
    return {**told, **simple, "anyOf": [*choices, {"type": "null"}]}
