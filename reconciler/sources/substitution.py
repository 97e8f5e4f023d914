"""`${node.…}` and `${values.…}` in manifests.

Rules of this file: after parsing, in string values only (never in keys), once: what is put in is not looked at again.
`$${` is a literal `${`; any other `${…}` is left as it is; a name that is not defined is a fault.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

_NAMED: Final = re.compile(r"\$\$\{|\$\{(node|values)\.([^{}]{1,253})\}")
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


def substitute(text: str, variables: Variables, undefined: Callable[[str, str], None]) -> str:
    """`text` with its variables put in; `undefined(message, advice)` is called for each that is not defined."""
    if "${" not in text:
        return text

    def value(found: re.Match[str]) -> str:
        if found[1] is None:
            return "${"
        if (known := variables.get(found[1], found[2])) is None:
            undefined(f"{found[0]} is not defined", _advice(found[1], variables))
            return found[0]
        return known

    return _NAMED.sub(value, text)


def _advice(root: str, variables: Variables) -> str:
    if root == "values":
        known = ", ".join(sorted(variables.values)) or "none"
        return f"values given: {known}; write $${{ for a literal ${{"
    labels = ", ".join(f"labels.{name}" for name in sorted(variables.node_labels))
    return f"the node has: name{', ' if labels else ''}{labels}"
