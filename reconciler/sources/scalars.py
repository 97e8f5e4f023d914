"""What a plain (unquoted) scalar means: YAML 1.2's core schema (chapter 10.3), strictly.

Rules of this file: a text that YAML 1.1 and 1.2 read differently (`yes`, `010`, `12:30:45`) has a meaning here, the
one of 1.2, and is `doubtful`: whoever reads it decides whether to refuse it.
"""

from __future__ import annotations

import re
from typing import Final

Scalar = str | int | float | bool | None

_WORDS: Final[dict[str, Scalar]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_DOUBTFUL_WORDS: Final = frozenset(
    form for word in ("yes", "no", "on", "off") for form in (word, word.capitalize(), word.upper())
) | {"=", "<<"}
_MAY_BE_NUMBER: Final = frozenset("0123456789+-.")
_DECIMAL: Final = re.compile(r"[-+]?[0-9]+")
_OCTAL: Final = re.compile(r"0o[0-7]+")
_HEXADECIMAL: Final = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NO_NUMBER: Final = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_DOUBTFUL: Final = re.compile(
    r"[-+]?0[0-9_]+"  # 010: eight or ten
    r"|[-+]?0b[01_]+|[-+]0x[0-9a-fA-F_]+|0x[0-9a-fA-F]*_[0-9a-fA-F_]*|[-+]?0o[0-7_]+"
    r"|[-+]?[0-9][0-9_]*_[0-9_]*(?:\.[0-9_]*)?"
    r"|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?"  # 12:30:45: seconds, to base 60
    r"|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt \t].*)?"
)
_LONGEST_NUMBER: Final = 64
_MOST: Final = 2**63


class NotANumber(ValueError):
    """A number that no 64-bit integer or finite float can hold; the message says so in words."""


def resolve(text: str) -> Scalar:
    """The value of a plain scalar; raises `NotANumber`."""
    if text in _WORDS:
        return _WORDS[text]
    return _number(text) if text[0] in _MAY_BE_NUMBER else text


def doubtful(text: str) -> bool:
    """Whether another YAML reader may take this plain scalar for something else than `resolve` does."""
    if text in _DOUBTFUL_WORDS:
        return True
    return text[:1] in _MAY_BE_NUMBER and len(text) > 1 and _DOUBTFUL.fullmatch(text) is not None


def plain(text: str) -> bool:
    """Whether `text` unquoted is that text to every reader (as far as its value goes, not its syntax)."""
    try:
        return resolve(text) == text and not doubtful(text)
    except NotANumber:
        return False


def _number(text: str) -> Scalar:
    for pattern, base, skip in ((_DECIMAL, 10, 0), (_OCTAL, 8, 2), (_HEXADECIMAL, 16, 2)):
        if pattern.fullmatch(text):
            return _bounded(text[skip:], base)
    if _NO_NUMBER.fullmatch(text):
        raise NotANumber("is not a finite number")
    if not _FLOAT.fullmatch(text):
        return text
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise NotANumber("is not a finite number")
    return value


def _bounded(digits: str, base: int) -> int:
    value = int(digits, base) if len(digits) <= _LONGEST_NUMBER else _MOST
    if not -_MOST <= value < _MOST:
        raise NotANumber("does not fit into 64 bits")
    return value
