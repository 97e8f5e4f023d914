"""`${node.…}` and `${values.…}` in manifests.

Rules of this file: after parsing, in string values only (never in keys), once: what is put in is not looked at again.
`$${` is a literal `${`; any other `${…}` is left as it is; a name that is not defined is a fault.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Final

from core.values import dataclass

_NAMED: Final = re.compile(r"\$\$\{|\$\{(node|values)\.([^{}]{1,253})\}")
MOST_PUT_IN: Final = 1 << 20
_LABELS: Final = "labels."


@dataclass(frozen=True, slots=True)
class Variables:
    """What manifests may name: this node, and values given beside them."""

    node_name: str
    node_labels: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)

    def get(self, root: str, name: str) -> str | None:
        """The value of `${root.name}`; None when it is not defined."""
        if root == "values":
            return self.values.get(name)
        if name == "name":
            return self.node_name
        return self.node_labels.get(name.removeprefix(_LABELS)) if name.startswith(_LABELS) else None


def substitute(text: str, variables: Variables, wrong: Callable[[str, str], None], room: int = MOST_PUT_IN) -> str:
    """`text` with its variables put in, at most `room` characters of them.

    `wrong(message, advice)` is called for each that is not defined, and once when there is no room.
    """
    if "${" not in text:
        return text
    left = room

    def value(found: re.Match[str]) -> str:
        nonlocal left
        if found[1] is None:
            return "${"
        if (known := variables.get(found[1], found[2])) is None:
            wrong(f"{found[0]} is not defined", _advice(found[1], variables))
            return found[0]
        before, left = left, left - len(known)
        if left < 0 <= before:
            wrong(f"more than {MOST_PUT_IN} characters are put into one document", "use shorter values, or fewer")
        return known if left >= 0 else ""

    return _NAMED.sub(value, text)


def _advice(root: str, variables: Variables) -> str:
    if root == "values":
        known = ", ".join(sorted(variables.values)) or "none"
        return f"values given: {known}; write $${{ for a literal ${{"
    labels = ", ".join(f"labels.{name}" for name in sorted(variables.node_labels))
    return f"the node has: name{', ' if labels else ''}{labels}"
