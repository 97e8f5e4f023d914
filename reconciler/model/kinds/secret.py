"""The spec of a Secret. No message of this file ever repeats a value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import Field

from reconciler.model.kinds.base import Spec
from reconciler.model.kinds.texts import Base64, DataKey, decoded_base64
from reconciler.model.problems import Problem, mapping_at


class SecretSpec(Spec):
    """Named byte strings: `data` in base64, `string_data` as text (UTF-8)."""

    data: dict[DataKey, Base64] = Field({}, repr=False)
    string_data: dict[DataKey, str] = Field({}, alias="stringData", repr=False)

    def contents(self) -> dict[str, bytes]:
        """All values by key, decoded."""
        decoded = {key: decoded_base64(value) for key, value in self.data.items()}
        return decoded | {key: value.encode() for key, value in self.string_data.items()}


def secret_conflicts(spec: Mapping[str, Any]) -> Iterator[Problem]:
    """A key that both `data` and `stringData` give."""
    for key in mapping_at(spec, "stringData"):
        if key in mapping_at(spec, "data"):
            yield Problem(("stringData", key), "is under data too", "keep one of them", at_key=True)
