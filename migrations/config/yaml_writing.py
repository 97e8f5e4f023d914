"""A tree as YAML, without the library that reads it: the start of a command is dear.

Rules of this file: what is written reads back as it was; scalars are plain words or JSON.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

from migrations.config.tree import Table, plain

_SAFE: Final = re.compile(r"[A-Za-z_/][A-Za-z0-9_./+@-]*")
_AMBIGUOUS: Final = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})


def render_yaml(root: Table) -> bytes:
    """The document of a tree, indented by two, keys in order."""
    lines: list[str] = []
    _mapping_lines(root, "", lines)
    lines += root.end
    while lines and not lines[0]:
        del lines[0]
    return "".join(f"{line}\n" for line in lines).encode()


def _mapping_lines(table: Table, indent: str, lines: list[str]) -> None:
    for node in table.entries.values():
        lines += [f"{indent}{line}" if line else "" for line in node.before]
        after = f" {node.after}" if node.after else ""
        key = yaml_scalar(node.key)
        if node.table is not None and node.table.entries:
            lines.append(f"{indent}{key}:{after}")
            _mapping_lines(node.table, indent + "  ", lines)
            lines += [f"{indent}  {line}" if line else "" for line in node.table.end]
        else:
            lines.append(f"{indent}{key}: {node.raw or yaml_value(plain(node.value))}{after}")
            lines += [f"{indent}  {line}" for line in (node.table.end if node.table is not None else [])]


def yaml_value(value: Any) -> str:
    """A scalar, a list or a dict in flow style."""
    if isinstance(value, list):
        return f"[{', '.join(map(yaml_value, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{yaml_scalar(key)}: {yaml_value(one)}" for key, one in value.items()) + "}"
    return yaml_scalar(value)


def yaml_scalar(value: Any) -> str:
    """A scalar that reads back as it is."""
    if value is None or isinstance(value, bool | int | float):
        return json.dumps(value)
    text = str(value)
    return text if _SAFE.fullmatch(text) and text.lower() not in _AMBIGUOUS else json.dumps(text, ensure_ascii=False)
