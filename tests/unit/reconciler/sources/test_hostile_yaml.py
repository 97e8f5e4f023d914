"""What hostile or odd text comes to: each has one defined outcome, and none costs more than a little."""

from __future__ import annotations

import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from reconciler.sources.manifests import MOST_DEPTH, MOST_FAULTS, MOST_NODES, read_documents

SECRET = "apiVersion: reconciler/v1\nkind: Secret\nmetadata: {name: s}\nspec:\n  stringData:\n"


def read(data: str | bytes) -> tuple[list[Any], list[str]]:
    """The values of a file's documents and all faults found while reading them."""
    documents, faults = read_documents(data.encode() if isinstance(data, str) else data, "x.yaml")
    found = [str(fault) for document in documents for fault in document.faults]
    return [document.root.value for document in documents], found + [str(fault) for fault in faults]


def test_billion_laughs_is_refused_at_its_first_anchor_and_costs_nothing() -> None:
    bomb = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 31))
    tracemalloc.start()
    began = time.process_time()
    _, faults = read(bomb)
    spent, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert faults[0] == "x.yaml:1:5: a0: anchors (&a0) are not read; remove it, and write values out"
    assert faults[2] == "x.yaml:2:10: a1[0]: aliases (*a0) are not read; write the value out"
    assert spent < 0.2
    assert peak < 50 << 20


def test_an_anchor_of_another_document_is_refused_too() -> None:
    _, faults = read("a: &x b\n---\nc: *x\n")
    assert [fault.split(";")[0] for fault in faults] == [
        "x.yaml:1:4: a: anchors (&x) are not read",
        "x.yaml:3:4: c: aliases (*x) are not read",
    ]


@pytest.mark.parametrize(
    "tagged",
    ["!!python/object/apply:os.system ['touch /tmp/x']", "!!python/name:os.system ''", "!!str 1", "!own {a: b}", "! x"],
)
def test_a_tag_is_refused_and_nothing_is_made_of_it(tagged: str) -> None:
    _, faults = read(f"a: {tagged}\n")
    assert len(faults) == 1
    assert faults[0].startswith("x.yaml:1:4: a: tags (")


def test_a_duplicate_key_is_refused_with_both_lines() -> None:
    values, faults = read("a: 1\nb:\n  c: 1\n  c: 2\na: 3\n")
    assert faults == [
        "x.yaml:4:3: b.c: stands in line 3 already; keep one of the two",
        "x.yaml:5:1: a: stands in line 1 already; keep one of the two",
    ]
    assert values == [{"a": 1, "b": {"c": 1}}]


def test_a_merge_key_is_refused() -> None:
    _, faults = read("a:\n  <<: {b: c}\n")
    assert faults == ["x.yaml:2:3: a: merge keys (<<) are not read; write the keys out"]


@pytest.mark.parametrize("key", ["1", "true", "yes", "on", "010", "~", "1.5", ".inf", "2001-12-14"])
def test_a_key_that_is_no_text_wants_quotes(key: str) -> None:
    _, faults = read(f"{key}: x\n")
    assert len(faults) == 1
    assert faults[0].startswith("x.yaml:1:1: ")
    assert "quote it" in faults[0]


@pytest.mark.parametrize("key", ["[a, b]", "{a: b}"])
def test_a_key_that_is_a_list_or_mapping_is_refused(key: str) -> None:
    _, faults = read(f"? {key}\n: x\n")
    assert [fault.split("; ")[1] for fault in faults] == ["write a plain word as key"]


@pytest.mark.parametrize(
    ("opening", "count"),
    [("[", 30_000), ("[\n", 30_000), ("{a: ", 30_000), ("- ", 30_000), ("? ", 30_000), ("[{", 9_999)],
)
def test_deep_nesting_is_refused_and_ends_no_process(opening: str, count: int) -> None:
    program = (
        "import sys; from reconciler.sources.manifests import read_documents\n"
        "print(read_documents(sys.stdin.buffer.read(), 'x.yaml')[1][0].message)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], input=(opening * count).encode(), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().strip() == f"nested deeper than {MOST_DEPTH} levels"


def test_deep_nesting_costs_little_time_and_memory() -> None:
    tracemalloc.start()
    began = time.process_time()
    read("[" * 1_000_000)
    spent, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert spent < 0.2
    assert peak < 50 << 20


def test_nesting_up_to_the_limit_is_read() -> None:
    values, faults = read("[" * MOST_DEPTH + "]" * MOST_DEPTH)
    assert faults == []
    assert str(values[0]) == "[" * MOST_DEPTH + "]" * MOST_DEPTH


@pytest.mark.parametrize("item", ["a,", "{b: 12345},", "'x': y,"])
def test_more_values_than_the_limit_are_refused_within_bounds(item: str) -> None:
    program = (
        "import resource, sys\n"
        "from reconciler.sources.manifests import read_documents\n"
        "data = sys.stdin.buffer.read()\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "print(read_documents(data, 'x.yaml')[1][0].message)\n"
        "print(peak() - before)"
    )
    text = "[" + item * ((1 << 20) // len(item) - 1) + "]"
    done = subprocess.run([sys.executable, "-c", program], input=text.encode(), capture_output=True, check=True)
    message, kibibytes = done.stdout.decode().splitlines()
    assert message == f"more than {MOST_NODES} values in a file"
    assert int(kibibytes) < 50 << 10


def test_faults_are_counted_and_end() -> None:
    _, faults = read("- &a b\n" * 1000)
    assert len(faults) == MOST_FAULTS + 1
    assert "too many faults" in faults[-1]


def test_a_file_over_one_mebibyte_is_refused_unread() -> None:
    assert read("a" * ((1 << 20) + 1))[1] == ["x.yaml: is larger than 1 MiB; split it into several files"]


def test_ten_thousand_empty_documents_are_none() -> None:
    assert read("---\n" * 10_000) == ([], [])


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "---\n...\n---\nnull\n", "\ufeff"])
def test_a_file_without_documents_is_valid(text: str) -> None:
    assert read(text) == ([], [])


def test_nul_is_refused_where_it_stands() -> None:
    assert read(b"a: b\nc: \0d\n")[1] == ["x.yaml:2:4: holds a control character (U+0000); remove it, or escape it"]


def test_an_escaped_nul_is_refused_too() -> None:
    assert read('a: "x\\0y"\n')[1] == ["x.yaml:1:4: a: holds a NUL character; no name, path or argument can hold one"]


def test_other_control_characters_are_refused_where_they_stand() -> None:
    assert read("é: \x1b[31m")[1] == ["x.yaml:1:4: holds a control character (U+001B); remove it, or escape it"]


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert read(b"\xef\xbb\xbfa: b\n") == ([{"a": "b"}], [])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-32"])
def test_other_encodings_are_refused(encoding: str) -> None:
    mark = "\ufeff" if encoding.endswith("be") else ""
    assert read((mark + "a: b\n").encode(encoding))[1] == ["x.yaml:1:1: is UTF-16 or UTF-32; save it as UTF-8"]


def test_utf_16_without_a_mark_is_refused_as_holding_nul() -> None:
    assert "U+0000" in read("a: b\n".encode("utf-16-le"))[1][0]


def test_bytes_that_are_no_utf_8_are_refused_where_they_stand() -> None:
    assert read(b"a: b\nc: \xffd\n")[1] == ["x.yaml:2:4: is not UTF-8 (byte 0xff); save it as UTF-8"]


def test_binary_is_refused() -> None:
    assert len(read(bytes(range(256)) * 16)[1]) == 1


def test_a_tab_as_indentation_is_refused_and_between_words_is_not() -> None:
    assert read("a:\tb\n") == ([{"a": "b"}], [])
    (fault,) = read("a:\n\tb: c\n")[1]
    assert fault.startswith("x.yaml:2:1: syntax: ")
    assert fault.endswith("indent with spaces only") or "cannot start any token" in fault


def test_lines_may_end_as_on_other_systems() -> None:
    assert read("a: b\r\nc:\r\n  d: e\r\n") == ([{"a": "b", "c": {"d": "e"}}], [])


def test_a_fault_of_syntax_keeps_the_documents_before_it() -> None:
    values, faults = read("a: b\n---\nc: [1\nd: e\n")
    assert values == [{"a": "b"}]
    assert len(faults) == 1
    assert faults[0].startswith("x.yaml:4:2: syntax: ")


@pytest.mark.parametrize(
    "number",
    [
        "9223372036854775808",
        "-9223372036854775809",
        "0xffffffffffffffffff",
        "9" * 5000,
        ".inf",
        "-.Inf",
        ".nan",
        "1e999",
    ],
)
def test_numbers_that_fit_nowhere_are_refused(number: str) -> None:
    _, faults = read(f"a: {number}\n")
    assert len(faults) == 1
    assert faults[0].startswith("x.yaml:1:4: a: ")
    assert faults[0].endswith("write a finite number that fits into 64 bits, or quote it")


def test_the_largest_integers_are_read() -> None:
    assert read("[9223372036854775807, -9223372036854775808]")[0] == [[2**63 - 1, -(2**63)]]


def test_directives_change_nothing() -> None:
    assert read("%YAML 1.1\n---\na: yes\n")[0] == [{"a": "yes"}]


def test_json_is_read_as_it_is() -> None:
    text = '{\n\t"a": [1, -2.5, true, null, "\\u00e9\\n", {}],\n\t"b": {"c": "yes"}\n}'
    assert read(text) == ([{"a": [1, -2.5, True, None, "é\n", {}], "b": {"c": "yes"}}], [])


def test_messages_hold_nothing_that_a_terminal_obeys() -> None:
    _, faults = read('"\\e[31m": 1\n"\\e[31m": 2\n')
    assert "\x1b" not in faults[0]
    _, faults = read("a: !" + "x" * 10_000 + " b\n")
    assert len(faults[0]) < 250


TEXT_DUE = ["1.10", "010", "0o17", "7", "true", "0x1F", "1e3", "12e03"]
DOUBTFUL = ["yes", "No", "on", "OFF", "12:30:45", "0b101", "1_000", "2001-12-14", "="]


@pytest.mark.parametrize("plain", TEXT_DUE)
def test_a_plain_number_where_text_is_due_wants_quotes(
    plain: str, faults: Callable[..., list[str]], container: Callable[[str], str]
) -> None:
    assert faults(container(f"network: {{mode: none}}\nworkingDir: {plain}\nstop: {{signal: TERM}}")) == [
        f'm.yaml:7:15: spec.workingDir: {plain} is not text; quote it: "{plain}"'
    ]


@pytest.mark.parametrize("plain", DOUBTFUL)
def test_a_plain_text_that_other_readers_take_otherwise_wants_quotes(
    plain: str, faults: Callable[..., list[str]], container: Callable[[str], str]
) -> None:
    assert faults(container(f"network: {{mode: none}}\nargs:\n  - {plain}")) == [
        f'm.yaml:8:7: spec.args[0]: {plain} means different things to YAML readers; quote it: "{plain}"'
    ]


@pytest.mark.parametrize("plain", TEXT_DUE + DOUBTFUL)
def test_the_same_in_quotes_is_text(
    plain: str, faults: Callable[..., list[str]], container: Callable[[str], str]
) -> None:
    assert faults(container(f"network: {{mode: none}}\nargs: ['{plain}', \"{plain}\"]")) == []


@pytest.mark.parametrize(("plain", "number"), [("010", None), ("0o17", None), ("0x10", 16), ("12", 12)])
def test_a_whole_number_is_read_unless_its_base_is_in_doubt(
    plain: str, number: int | None, loaded: Callable[..., Any], container: Callable[[str], str]
) -> None:
    found = loaded(container(f"network: {{mode: none}}\nresources: {{pids: {plain}}}"))
    if number is None:
        assert [str(fault) for fault in found.faults] == [
            (
                f"m.yaml:7:21: spec.resources.pids: {plain} means different things to YAML readers; "
                "write it as a decimal number"
            )
        ]
    else:
        assert found.manifests[0].spec["resources"]["pids"] == number


def test_a_word_where_true_or_false_is_due_is_refused_once(
    faults: Callable[..., list[str]], container: Callable[[str], str]
) -> None:
    assert faults(container("network: {mode: none}\ntty: yes")) == [
        "m.yaml:7:8: spec.tty: is not true or false; write true or false, without quotes"
    ]


@pytest.mark.parametrize("value", ["12345", "yes", "1.10", "true", "99999999999999999999", "12:30:45"])
def test_what_is_wrong_with_a_secret_is_told_without_its_value(value: str, faults: Callable[..., list[str]]) -> None:
    (fault,) = faults(f"{SECRET}    pin: {value}\n")
    assert fault.startswith("m.yaml:6:10: spec.stringData.pin: ")
    assert value not in fault
    assert "quote it" in fault or "in quotes" in fault
