"""What compose does with texts: variables put into them, and command lines taken apart.

Rules of this file: a variable that nobody set is an empty text, as with compose, and is told; `$$` is a `$`.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from typing import Final

from migrations.config.work import Outcome
from migrations.manifests.given import Account, Given

_VARIABLE: Final = re.compile(
    r"\$(?:(?P<dollar>\$)|(?P<plain>[A-Za-z_][A-Za-z0-9_]*)|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)"
    r"(?:(?P<how>:?[-?+])(?P<word>[^{}]*))?\})"
)


class _Putting:
    """One text; `set` and `unset` are the names that were met."""

    def __init__(self, given: Given, variables: Mapping[str, str]) -> None:
        self.given, self.variables = given, variables
        self.known: list[str] = []
        self.unset: list[str] = []

    def value(self, found: re.Match[str]) -> str:
        """What stands for one `$…`."""
        if found["dollar"]:
            return "$"
        name, how, word = found["plain"] or found["name"], found["how"] or "", found["word"] or ""
        value = self.variables.get(name)
        there = value is not None and not (how.startswith(":") and not value)
        if how.endswith("+"):
            self.known.append(name)
            return word if there else ""
        if there:
            self.known.append(name)
            return value or ""
        if how.endswith("?"):
            raise self.given.bad(f"needs the variable {name}: {word or 'it is not set'}", f"Set it: export {name}=…")
        (self.known if how else self.unset).append(name)
        return word


def put_in(account: Account, root: Given, variables: Mapping[str, str]) -> None:
    """Put variables into every text below `root`, and say so where what is put in is not told of anyway."""
    for leaf in root.leaves():
        if not isinstance(leaf.value, str) or "$" not in leaf.value:
            continue
        putting = _Putting(leaf, variables)
        leaf.value = _VARIABLE.sub(putting.value, leaf.value)
        leaf.text = leaf.value
        if putting.unset:
            name = putting.unset[0]
            account.say(leaf, Outcome.DROPPED, f"{name} is not set, and stands for nothing: export {name}=… before")
        elif putting.known:
            names = ", ".join(dict.fromkeys(putting.known))
            account.say(leaf, Outcome.TRANSLATED, f"{names}: what it is now is put in")


def command(account: Account, given: Given) -> list[str]:
    """A command line as a list; a text is taken apart as a shell does it."""
    if given.items is not None:
        return [one.string() for one in given.items]
    try:
        return shlex.split(given.string())
    except ValueError as error:
        raise given.bad(f"is no command line: {error}", "Write it as a list.") from None
