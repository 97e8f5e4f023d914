"""Variables in string values."""

from __future__ import annotations

import pytest

from reconciler.sources.substitution import MOST_PUT_IN, Variables, substitute

VARIABLES = Variables("edge-1", {"site": "north", "a.org/x": "y"}, {"a": "1", "b": "${node.name}", "long": "x" * 1000})


def put_in(text: str) -> tuple[str, list[str]]:
    wrong: list[str] = []
    return substitute(text, VARIABLES, lambda message, advice: wrong.append(f"{message}; {advice}")), wrong


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("plain", "plain"),
        ("${node.name}", "edge-1"),
        ("${node.labels.site}/${node.labels.a.org/x}", "north/y"),
        ("${values.a}${values.a}", "11"),
        ("${values.b}", "${node.name}"),
        ("$${node.name}", "${node.name}"),
        ("$$${node.name}", "$${node.name}"),
        ("${HOME} ${env.x} ${} ${node} $node.name ${values}", "${HOME} ${env.x} ${} ${node} $node.name ${values}"),
        ("${node.name", "${node.name"),
        ("$", "$"),
    ],
)
def test_only_the_two_roots_are_put_in_and_only_once(text: str, result: str) -> None:
    assert put_in(text) == (result, [])


@pytest.mark.parametrize("name", ["node.nope", "node.labels.nope", "node.labels.", "values.nope", "values.a.b"])
def test_an_undefined_name_is_told_with_those_that_are(name: str) -> None:
    text, (wrong,) = put_in(f"x${{{name}}}")
    assert text == f"x${{{name}}}"
    assert wrong.startswith(f"${{{name}}} is not defined; ")
    assert ("a, b, long" if name.startswith("values") else "name, labels.a.org/x, labels.site") in wrong


def test_a_short_text_cannot_grow_without_end() -> None:
    text, wrong = put_in("${values.long}" * 100_000)
    assert len(text) <= MOST_PUT_IN
    assert wrong == [f"more than {MOST_PUT_IN} characters are put into one document; use shorter values, or fewer"]
