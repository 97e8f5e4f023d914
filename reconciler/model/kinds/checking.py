"""From a document's plain values to all that is wrong with it, in words: pydantic's errors never reach a person.

Rules of this file: every problem at once; a Secret's values are never repeated; what the agent will know later is
refused as such.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from reconciler.model.identity import Kind
from reconciler.model.kinds import SPEC_MODELS
from reconciler.model.kinds.base import Metadata
from reconciler.model.kinds.container import container_conflicts
from reconciler.model.kinds.image import image_conflicts
from reconciler.model.kinds.later import LATER_FIELDS, LATER_VALUES
from reconciler.model.kinds.sandbox import sandbox_conflicts
from reconciler.model.kinds.secret import secret_conflicts
from reconciler.model.kinds.source import source_conflicts
from reconciler.model.problems import Path, Problem, Wrong

_CONFLICTS: Final[Mapping[Kind, Callable[[Mapping[str, Any]], Iterator[Problem]]]] = {
    Kind.IMAGE: image_conflicts,
    Kind.CONTAINER: container_conflicts,
    Kind.SANDBOX: sandbox_conflicts,
    Kind.SECRET: secret_conflicts,
    Kind.SOURCE: source_conflicts,
}
_WRITE_WHEN_MISSING: Final[Mapping[str, str]] = {
    "ref": "write the image's reference, such as docker.io/library/nginx:1.27",
    "image": "write the name of an Image object, or an image reference",
    "runtime": "write runtime: runc",
    "git.url": "write the repository's address, such as https://git.example.org/edge.git",
    "name": "write a name of a-z, 0-9, '-' and '.'",
}
CARRIED: Final[Mapping[str, str]] = {
    "fileContent": "give the content by file: PATH",
    "seccompContent": "give the profile by seccomp: PATH",
    "apparmorContent": "give the profile by apparmor: ./PATH",
}
"""What the reader of a manifest puts into its spec out of files beside it, and what people write instead."""
_WRITTEN_BY_THE_AGENT: Final = frozenset(
    {
        "uid",
        "generation",
        "resourceVersion",
        "manager",
        "createdAt",
        "owners",
        "finalizers",
        "deletedAt",
        "origin",
        "revision",
    }
)
_NOT_YET: Final = "is not supported yet"
_WRONG_TYPES: Final[Mapping[str, tuple[str, str]]] = {
    "bool_type": ("is not true or false", "write true or false, without quotes"),
    "int_type": ("is not a whole number", "write a whole number, without quotes"),
    "model_type": ("is not a mapping", "write key: value pairs, indented below it"),
    "dict_type": ("is not a mapping", "write key: value pairs, indented below it"),
    "too_short": ("is empty", "write at least one"),
    "tuple_type": ("is not a list", "write one item a line, each after '- ', or [a, b]"),
}


def check_spec(kind: Kind, spec: Mapping[str, Any]) -> list[Problem]:
    """All that is wrong with `spec` (JSON types) as a `kind`; paths begin with `spec`. Empty: it is valid."""
    return _within("spec", [*_checked(SPEC_MODELS[kind], spec, kind), *_conflicts(kind, spec)])


def check_model(model: type[BaseModel], value: Mapping[str, Any]) -> list[Problem]:
    """All that is wrong with `value` (JSON types) as a `model` that is no kind; paths begin at its top."""
    return _checked(model, value, None)


def check_metadata(metadata: Mapping[str, Any]) -> list[Problem]:
    """All that is wrong with a document's `metadata`; paths begin with it."""
    return _within("metadata", _checked(Metadata, metadata, None))


def unknown_key(key: str, known: list[str], path: Path) -> Problem:
    """The problem of a key that nobody knows, with the one that was probably meant."""
    from difflib import get_close_matches  # needed by few runs

    close = get_close_matches(key, known, n=1)
    advice = f"did you mean {close[0]}?" if close else f"known here: {', '.join(known)}" if known else "leave it out"
    return Problem(path, "unknown field", advice, at_key=True)


def _within(root: str, problems: list[Problem]) -> list[Problem]:
    return [Problem((root, *p.path), p.message, p.advice, p.at_key, p.text_due) for p in problems]


def _conflicts(kind: Kind, spec: Mapping[str, Any]) -> Iterator[Problem]:
    return _CONFLICTS[kind](spec) if kind in _CONFLICTS else iter(())


def _checked(model: type[BaseModel], value: Mapping[str, Any], kind: Kind | None) -> list[Problem]:
    try:
        model.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False)
        return [_problem(model, kind, detail) for detail in found if not _follows(detail, found)]
    return []


def _follows(detail: ErrorDetails, found: list[ErrorDetails]) -> bool:
    """Whether a list is too short only because what is in it is wrong, which is told already."""
    place = detail["loc"]
    return detail["type"] == "too_short" and any(
        other["loc"][: len(place)] == place and len(other["loc"]) > len(place) for other in found
    )


def _problem(model: type[BaseModel], kind: Kind | None, error: ErrorDetails) -> Problem:
    """One of pydantic's errors in our words."""
    path, what, value = error["loc"], error["type"], error["input"]
    at_key = bool(path) and path[-1] == "[key]"
    if at_key:
        path = path[:-1]
    if kind is not None and (later := _later(kind, path, what, value)) is not None:
        return later
    if isinstance(wrong := error.get("ctx", {}).get("error"), Wrong):
        if wrong.text_due:
            return Problem(path, "is not text", _text_advice(value), at_key, text_due=True)
        return Problem(path, wrong.message, wrong.advice, at_key)
    if what == "string_type":
        return Problem(path, "is not text", _text_advice(value), at_key, text_due=True)
    if what == "missing":
        return Problem(path, "is missing", _WRITE_WHEN_MISSING.get(_generic(path), f"write {path[-1]}"))
    if what == "extra_forbidden":
        return _unknown(model, kind, path)
    if what in _WRONG_TYPES:
        return Problem(path, *_WRONG_TYPES[what])
    return Problem(path, *_out_of_range(error), at_key)


def _later(kind: Kind, path: Path, what: str, value: object) -> Problem | None:
    """The refusal of what comes later, or None when it is simply wrong."""
    generic = _generic(path)
    if what == "extra_forbidden" and generic in LATER_FIELDS[kind]:
        return Problem(path, _NOT_YET, "leave it out", at_key=True)
    test = LATER_VALUES[kind].get(generic)
    if what not in ("literal_error", "value_error") or test is None or not test(value):
        return None
    return Problem(path, f"{value if isinstance(value, str) else str(value).lower()} {_NOT_YET}", _instead(generic))


def _instead(generic: str) -> str:
    return "write runc" if generic == "runtime" else "leave it out"


def _unknown(model: type[BaseModel], kind: Kind | None, path: Path) -> Problem:
    if kind is None and path[-1] in _WRITTEN_BY_THE_AGENT:
        return Problem(path, "is written by the agent", "leave it out", at_key=True)
    if (advice := CARRIED.get(str(path[-1]))) is not None:
        return Problem(path, "is written by the agent", advice, at_key=True)
    return unknown_key(str(path[-1]), _fields_at(model, path[:-1]), path)


def _out_of_range(error: ErrorDetails) -> tuple[str, str]:
    """Words for what is left: words out of a list, and numbers out of bounds."""
    bounds = error.get("ctx", {})
    if error["type"] == "literal_error":
        words = bounds["expected"].replace("'", "").replace("True", "true").replace("False", "false")
        return f"{error['input']!r} is not known here", f"write {words}"
    if "ge" in bounds:
        return "is too small", f"write {bounds['ge']} or more"
    if "le" in bounds:
        return "is too large", f"write {bounds['le']} or less"
    return error["msg"], ""


def _text_advice(value: object) -> str:
    return "write text" if isinstance(value, dict | list) else "write it in quotes"


def _generic(path: Path) -> str:
    """`mounts[].path`, for the tables."""
    text = ""
    for part in path:
        text += "[]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _fields_at(model: type[BaseModel], path: Path) -> list[str]:
    """The keys known at `path` below `model`; empty where there is no model."""
    is_name = False
    for part in path:
        if is_name or isinstance(part, int):
            is_name = False
            continue
        field = next((f for name, f in model.model_fields.items() if part in (f.alias, name)), None)
        below = _model_in(field.annotation) if field is not None else None
        if field is None or below is None:
            return []
        is_name = get_origin(field.annotation) is dict  # of an entry, which is free
        model = below
    names = (field.alias or name for name, field in model.model_fields.items())
    return [name for name in names if name not in CARRIED]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model in `X`, `X | None`, `tuple[X, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part)) is not None), None)
