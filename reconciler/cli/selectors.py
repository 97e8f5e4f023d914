"""Label selectors as people write them after `-l`: `app=web,tier!=db,canary,!old`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from core.errors import Invalid
from core.values import dataclass

_OPERATORS: Final = ("!=", "==", "=")


@dataclass(frozen=True, slots=True)
class Term:
    """One condition on a label; `value` None: only that it is there (`wanted`) or not."""

    label: str
    value: str | None
    wanted: bool

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether `labels` satisfy it; a label that is not there differs from every value."""
        if self.value is None:
            return (self.label in labels) is self.wanted
        return (labels.get(self.label) == self.value) is self.wanted


def parse_selector(text: str) -> tuple[Term, ...]:
    """All terms, each of which must match; none for an empty text. Raises `Invalid`."""
    return tuple(_term(part.strip()) for part in text.split(",") if part.strip())


def matches(terms: tuple[Term, ...], labels: Mapping[str, str]) -> bool:
    """Whether all of `terms` hold."""
    return all(term.matches(labels) for term in terms)


def _term(text: str) -> Term:
    for operator in _OPERATORS:
        label, found, value = text.partition(operator)
        if found:
            return _checked(Term(label.strip(), value.strip(), operator != "!="), text)
    return _checked(Term(text.lstrip("! "), None, not text.startswith("!")), text)


def _checked(term: Term, text: str) -> Term:
    if not term.label or any(char in term.label + (term.value or "") for char in "!=() "):
        raise Invalid(f"{text!r} is not a label selector", advice="Write it like app=web,tier!=db,canary,!old.")
    return term
