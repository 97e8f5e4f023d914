"""Whatever the bytes, reading ends in documents and faults; whatever the values, writing can be undone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reconciler.sources.documents import read_manifest
from reconciler.sources.files import ManifestFile
from reconciler.sources.manifests import dump, read_documents
from reconciler.sources.substitution import Variables

WORDS = [
    "apiVersion: reconciler/v1", "kind: Container", "kind: Secret", "metadata:", "name: web", "spec:", "image: web",
    "mounts:", "env:", "- ", "  ", "\n", "\n  ", "\n    ", "---\n", "...", "{", "}", "[", "]", ",", ": ", "? ", "&a ",
    "*a", "!!str ", "<<: ", "|", ">-", "'", '"', "\\x41", "\\", "#", "%", "\t", "\0", "\ufeff", "yes", "010", "1.10",
    ".inf", "~", "9" * 30, "${values.x}", "${node.name}", "$${", "é", "\U0001f600", "\x85", "network: {mode: none}",
    "path: /x", "file: ../x", "tmpfs: {}", "resources: {cpu: 1}", "labels: {a: b}", "command: [a, 1]",
]  # fmt: skip
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
scalars = texts | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()
values = st.recursive(
    scalars | st.none(), lambda inner: st.lists(inner) | st.dictionaries(texts, inner, max_size=4), max_leaves=12
)


def outcome(data: bytes) -> None:
    """Read bytes down to manifests; all that may come of it is manifests and faults."""
    documents, faults = read_documents(data, "x.yaml")
    source = ManifestFile("x.yaml", data)
    for document in documents:
        reading = read_manifest(document, source, Variables("n", {}, {"x": "y"}))
        assert (reading.manifest is None) is bool(reading.faults)
        faults = faults + reading.faults
    for fault in faults:
        assert str(fault).isprintable()
        assert len(str(fault)) < 1500


@given(st.binary(max_size=300))
def test_random_bytes_end_in_faults_at_worst(data: bytes) -> None:
    outcome(data)


@settings(max_examples=300)
@given(st.lists(st.sampled_from(WORDS), max_size=40).map("".join))
def test_yaml_like_text_ends_in_faults_at_worst(text: str) -> None:
    outcome(text.encode())


@given(st.dictionaries(st.sampled_from(["image", "env", "mounts", "security", "network", "x"]), values))
def test_any_spec_ends_in_faults_at_worst(spec: dict[str, Any]) -> None:
    document = {"apiVersion": "reconciler/v1", "kind": "Container", "metadata": {"name": "a"}, "spec": spec}
    outcome(dump([document]).encode())


@given(st.lists(st.dictionaries(texts, values, min_size=1, max_size=5), max_size=3))
def test_what_is_written_is_read_back(documents: list[dict[str, Any]]) -> None:
    found, faults = read_documents(dump(documents).encode(), "x.yaml")
    assert faults == []
    assert [document.root.value for document in found] == documents
    assert [fault for document in found for fault in document.faults] == []


@pytest.mark.parametrize("value", [1.0, 1e300, -0.0, 1e-7, 5e-324, 1e16])
def test_a_float_stays_a_float(value: float) -> None:
    found, _ = read_documents(dump([{"a": value}]).encode(), "x.yaml")
    assert repr(found[0].root.value["a"]) == repr(value)
