"""conmon's command line and its answers."""

from pathlib import Path

import pytest

from core.errors import AgentError, Category, Invalid
from core.runtime import conmon
from core.runtime.bundle import Record, checked_group, checked_name

RECORD = Record("boot", "/g/one", Path("/l/one"), "box", True, True, 100)


def test_the_command_line_carries_all_that_conmon_must_know() -> None:
    argv = conmon.Monitor("/c", "/r", Path("/s/runc"), Path("/s/exits")).command("one", Path("/s/bundles/one"), RECORD)
    text = " ".join(argv)
    for part in ("--cid one", "--bundle /s/bundles/one", "--exit-dir /s/exits", "--log-path k8s-file:/l/one"):
        assert part in text
    assert "--runtime /r --runtime-arg --root --runtime-arg /s/runc" in text
    assert "--terminal" in argv
    assert "--stdin" in argv


def test_a_good_answer_is_the_first_process() -> None:
    assert conmon.parse_answer(b'{"pid": 42}\n', "") == 42


def failure(answer: bytes, stderr: str = "") -> AgentError:
    with pytest.raises(AgentError) as caught:
        conmon.parse_answer(answer, stderr)
    return caught.value


@pytest.mark.parametrize(
    ("words", "category"),
    [
        ('exec: "x": executable file not found in $PATH', Category.NOT_FOUND),
        ('exec: "/x": stat /x: no such file or directory', Category.NOT_FOUND),
        ('exec: "/etc": permission denied', Category.DENIED),
        ("exec /x: exec format error", Category.UNSUPPORTED),
        ("write /x: no space left on device", Category.NO_SPACE),
        ("container with given ID already exists", Category.CONFLICT),
        ("container does not exist", Category.NOT_FOUND),
        ("container init was OOM-killed (memory limit too low?)", Category.INVALID),
        ('error mounting "/a" to rootfs at "/b": not a directory', Category.INVALID),
        ("something else", Category.FAILED),
    ],
)
def test_the_runtimes_words_become_the_error_that_says_what_to_do(words: str, category: Category) -> None:
    quoted = words.replace('"', '\\\\\\"')
    answer = '{"pid": -1, "message": "time=\\"2023\\" level=error msg=\\"' + quoted + '\\"\\n"}\n'
    error = failure(answer.encode())
    assert error.category is category
    assert words in error.message


def test_no_answer_is_told_with_what_stderr_says() -> None:
    assert "ended before it said anything" in failure(b"").message
    assert failure(b"", "conmon: cannot open log\n").message == "conmon: cannot open log"
    assert failure(b"garbage\n", "why").message == "why"
    assert failure(b'{"pid": -1}\n').message


def test_a_json_log_line_is_read_too() -> None:
    assert conmon.said('{"level":"error","msg":"boom","time":"x"}') == "boom"


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "-x", "a\n", "a b", "x" * 201, ".staging-x"])
def test_what_could_be_more_than_a_name_is_refused(name: str) -> None:
    with pytest.raises(Invalid):
        checked_name(name)


@pytest.mark.parametrize("path", ["", "/", "/g", "/gx/y", "/g/../x", "/g/x/", "/g//x", "/g/.x", "g/x", "/h/x"])
def test_a_group_elsewhere_is_refused(path: str) -> None:
    with pytest.raises(Invalid):
        checked_group(path, "/g")


def test_a_group_below_is_taken() -> None:
    assert checked_group("/g/box/one-1234.5", "/g") == "/g/box/one-1234.5"
    assert checked_name("web.1-0a1b2c3d-7") == "web.1-0a1b2c3d-7"
