"""What `-o yaml` prints."""

from __future__ import annotations

from typing import Any

import pytest

from reconciler.sources.manifests import dump, read_documents
from reconciler.sources.scalars import doubtful, plain, resolve


def test_documents_are_written_for_people() -> None:
    document = {
        "kind": "Container",
        "metadata": {"name": "web", "labels": {}},
        "spec": {
            "args": ["-v", "80", "yes"],
            "script": "a\nb\n",
            "user": "1000:1000",
            "pids": 64,
            "tty": True,
            "x": None,
        },
    }
    assert dump([document, {"a": []}]) == (
        "kind: Container\nmetadata:\n  name: web\n  labels: {}\nspec:\n  args:\n  - -v\n  - '80'\n  - 'yes'\n"
        "  script: |\n    a\n    b\n  user: 1000:1000\n  pids: 64\n  tty: true\n  x: null\n---\na: []\n"
    )


@pytest.mark.parametrize(
    "text",
    ["", " ", "a ", " a", "\n", "a\n\n", " a\nb", "a: b", "# a", "- a", "'", '"', "\\", "é", "\u2028", "\t", "a\tb",
     "\x1b[31m", "\x85", "\ud7ff", "\ufeff", "\U0001f600", "null", "~", "1.10", "010", "on", "12:30:45", "=", "<<",
     "---", "...", "&a", "*a", "!a", "%a", "@a", "`a", "[", "{", "x" * 5000, "a b " * 100, "0x1F", "1_0", "-", "?",
     "\r", "a\r\nb", "| \n x", "\n  indented\nnot\n"],
)  # fmt: skip
def test_every_text_comes_back_as_it_was(text: str) -> None:
    document: dict[str, Any] = {"value": text, "list": [text, {"deep": text}]}
    if text and len(text) < 1000:
        document[text] = "key"
    documents, faults = read_documents(dump([document]).encode(), "x")
    assert faults == []
    assert documents[0].faults == []
    assert documents[0].doubtful == []
    assert documents[0].root.value == document


@pytest.mark.parametrize(
    ("text", "value"),
    [("", None), ("~", None), ("null", None), ("true", True), ("FALSE", False), ("yes", "yes"), ("12", 12), ("-3", -3),
     ("+3", 3), ("0o17", 15), ("0x1F", 31), ("010", 10), ("1.10", 1.1), ("1e3", 1000.0), (".5", 0.5), ("5.", 5.0),
     ("1.2.3", "1.2.3"), ("1e", "1e"), ("-", "-"), (".", "."), ("0b1", "0b1"), ("1_0", "1_0"), ("٣", "٣"),
     ("tRue", "tRue")],
)  # fmt: skip
def test_plain_scalars_mean_what_the_core_schema_says(text: str, value: object) -> None:
    assert resolve(text) == value
    assert type(resolve(text)) is type(value)


@pytest.mark.parametrize("text", ["1000:1000", "8080:80", "a", "1.2.3", "-v", "+x", "web:1", "2001", "y", "n", "1h30m"])
def test_ordinary_words_are_in_no_doubt(text: str) -> None:
    assert not doubtful(text)
    assert plain(text) is (resolve(text) == text)
