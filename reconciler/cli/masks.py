"""What is secret is shown as `***`, whatever asks for it.

Rules of this file: all that prints an object goes through `masked`; the names of a secret's keys are not secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from reconciler.decide.edits import MASK
from reconciler.model.identity import Kind
from reconciler.model.objects import Object

_SECRET_FIELDS: Final = ("data", "stringData", "encrypted")


def masked(obj: Object) -> dict[str, Any]:
    """The object in the shape of `get -o json`, with nothing secret in it."""
    shape = obj.to_json()
    if obj.kind is Kind.SECRET:
        shape["spec"] = {
            field: hide(value) if field in _SECRET_FIELDS else value for field, value in shape["spec"].items()
        }
    return shape


def hide(value: Any) -> Any:
    """`value` with every leaf masked, keys kept."""
    return {name: hide(part) for name, part in value.items()} if isinstance(value, Mapping) else MASK
