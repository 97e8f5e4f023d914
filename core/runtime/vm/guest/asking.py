"""What a call was given, and how it is refused. Nothing that the host says is taken on trust."""

from __future__ import annotations

from typing import Any, Final

_LONGEST_NAME: Final = 200


class Refused(Exception):
    """A call that cannot be done; `category` is a word of `core.errors.Category`."""

    def __init__(self, category: str, message: str) -> None:
        super().__init__(message)
        self.category = category
        self.message = message


class Given:
    """The parameters of a call. Every look raises `Refused` for what is missing or of the wrong kind."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def _of(self, kind: type, name: str) -> Any:
        value = self._values.get(name)
        if type(value) is not kind:
            raise Refused("invalid", f"{name} is not a {kind.__name__}: {str(value)[:60]!r}")
        return value

    def values(self) -> dict[str, Any]:
        """All of them, as they came."""
        return self._values

    def has(self, name: str) -> bool:
        """Whether it was given, and is not null."""
        return self._values.get(name) is not None

    def text(self, name: str) -> str:
        """A text without NUL."""
        value: str = self._of(str, name)
        if "\0" in value:
            raise Refused("invalid", f"{name} has a NUL in it")
        return value

    def name(self, name: str) -> str:
        """A text that may be part of a path: letters, digits, and `-`, `.`, `_` within."""
        return plain(self.text(name))

    def number(self, name: str, most: int = 1 << 32) -> int:
        """A whole number from 0 to `most`."""
        value: int = self._of(int, name)
        if not 0 <= value <= most:
            raise Refused("invalid", f"{name} is {value}, which cannot be")
        return value

    def flag(self, name: str) -> bool:
        """True or false; false when it is left out."""
        return bool(self._of(bool, name)) if self.has(name) else False

    def object(self, name: str) -> dict[str, Any]:
        """An object."""
        value: dict[str, Any] = self._of(dict, name)
        return value

    def texts(self, name: str) -> list[str]:
        """A list of texts; empty when it is left out."""
        values = self._of(list, name) if self.has(name) else []
        return [Given({name: value}).text(name) for value in values]

    def objects(self, name: str) -> list[Given]:
        """A list of objects; empty when it is left out."""
        values = self._of(list, name) if self.has(name) else []
        return [Given(Given({name: value}).object(name)) for value in values]


def plain(value: str) -> str:
    """`value` itself where it may be a name in a path; raises `Refused`."""
    bare = value.replace("-", "").replace(".", "").replace("_", "")
    if not (bare.isascii() and bare.isalnum() and value[0].isalnum() and len(value) <= _LONGEST_NAME):
        raise Refused("invalid", f"{value[:60]!r} is no name")
    return value
