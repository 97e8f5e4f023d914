"""What can be wrong with a spec, as values; and the one exception that a field's validator raises.

Rules of this file: a message says what is wrong, an advice says what to write instead; neither repeats the path.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.values import dataclass

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of a document, without file and line: `path` leads to it from the document's root.

    `at_key`: the key itself is wrong (unknown), not its value. `text_due`: a string belongs there, so an unquoted
    number only wants quotes.
    """

    path: Path
    message: str
    advice: str = ""
    at_key: bool = False
    text_due: bool = False


class Wrong(ValueError):
    """Raised by validators of fields; `text_due` when the value is no string at all."""

    def __init__(self, message: str, advice: str = "", *, text_due: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice
        self.text_due = text_due


def shown(path: Path) -> str:
    """`spec.mounts[1].path`; keys that are not plain words are quoted: `metadata.labels["a.b/c"]`."""
    out: list[str] = []
    for part in path:
        if isinstance(part, int):
            out.append(f"[{part}]")
        elif part.replace("-", "").replace("_", "").isalnum():
            out.append(f".{excerpt(part)}" if out else excerpt(part))
        else:
            out.append(f"[{quoted(part)}]")
    return "".join(out)


def excerpt(text: object, most: int = 60) -> str:
    """`text` for a message: at most `most` characters, with nothing in it that a terminal would obey."""
    whole = str(text)
    safe = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in whole[:most])
    return safe if len(whole) <= most else f"{safe}…"


def quoted(text: str) -> str:
    """`text` as it would stand in double quotes, for a message."""
    return '"' + excerpt(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def mapping_at(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """`value[key]` where it is a mapping, else an empty one: checks across fields look at specs not yet validated."""
    found = value.get(key)
    return found if isinstance(found, Mapping) else {}


def mappings_in(value: Mapping[str, Any], key: str) -> list[tuple[int, Mapping[str, Any]]]:
    """The mappings in the list `value[key]` with their places; empty when it is no list."""
    found = value.get(key)
    return [(i, item) for i, item in enumerate(found) if isinstance(item, Mapping)] if isinstance(found, list) else []
