"""What git's words mean: real ones, from git 2.39 with libcurl and OpenSSH 9, as tables."""

import pytest

from core.errors import AgentError, Category, Denied, Failed, Invalid, NoSpace, NotFound, OverLimit, Retry, Unavailable
from reconciler.sources.git_faults import Cut, Damaged, Untrusted, distrusted, empty, no_such_ref, refusal, words

WHERE = "https://git.example.org/nodes.git"

SAID: dict[str, type[AgentError]] = {
    f"fatal: Authentication failed for '{WHERE}/'": Denied,
    "fatal: could not read Username for 'https://git.example.org': terminal prompts disabled": Denied,
    f"fatal: unable to access '{WHERE}/': The requested URL returned error: 403": Denied,
    "git@h: Permission denied (publickey).\nfatal: Could not read from remote repository.": Denied,
    'Load key "/x": error in libcrypto\ngit@h: Permission denied (publickey).': Denied,
    "fatal: detected dubious ownership in repository at '/srv/x'": Denied,
    "Host key verification failed.\nfatal: Could not read from remote repository.": Untrusted,
    f"fatal: unable to access '{WHERE}/': server certificate verification failed. CAfile: none": Untrusted,
    f"fatal: unable to access '{WHERE}/': SSL certificate problem: certificate has expired": Untrusted,
    f"fatal: unable to access '{WHERE}/': Could not resolve host: git.example.org": Unavailable,
    f"fatal: unable to access '{WHERE}/': Failed to connect to h port 443 after 0 ms": Unavailable,
    f"fatal: unable to access '{WHERE}/': The requested URL returned error: 503": Unavailable,
    f"fatal: unable to access '{WHERE}/': The requested URL returned error: 429": Unavailable,
    "ssh: connect to host h port 22: Connection refused\nfatal: Could not read from remote repository.": Unavailable,
    "ssh: connect to host h port 22: No route to host": Unavailable,
    "kex_exchange_identification: Connection closed by remote host": Unavailable,
    f"fatal: unable to access '{WHERE}/': The requested URL returned error: 301": Invalid,
    f"fatal: repository '{WHERE}/' not found": NotFound,
    "ERROR: Repository not found.\nfatal: Could not read from remote repository.": NotFound,
    "fatal: '/srv/x' does not appear to be a git repository": NotFound,
    "fatal: remote error: upload-pack: not our ref 1111": NotFound,
    "error: Server does not allow request for unadvertised object 1111": NotFound,
    "error: RPC failed; curl 18 transfer closed with outstanding read data remaining": Cut,
    "fetch-pack: unexpected disconnect while reading sideband packet\nfatal: early EOF": Cut,
    "fatal: the remote end hung up unexpectedly": Cut,
    "git died of signal 9": Cut,
    "error: index-pack died of signal 9\nfatal: fetch-pack: invalid index-pack output": Cut,
    "error: index-pack died of signal 25\nfatal: fetch-pack: invalid index-pack output": OverLimit,
    "fatal: Out of memory, malloc failed (tried to allocate 10737418241 bytes)": OverLimit,
    "fatal: write error: File too large": OverLimit,
    "fatal: write error: No space left on device\nfatal: fetch-pack: invalid index-pack output": NoSpace,
    "fatal: cannot create directory: Read-only file system": NoSpace,
    "fatal: bad object refs/fetched/tip": Damaged,
    "error: object file objects/ab/cd is empty\nfatal: loose object abcd is corrupt": Damaged,
    "error: packfile objects/pack/x.pack does not match index": Damaged,
    "error: refs/fetched/tip does not point to a valid object!": Damaged,
    "fatal: pack has 3 unresolved deltas\nfatal: fetch-pack: invalid index-pack output": Damaged,
    "fatal: something that nobody heard of": Failed,
    "": Failed,
}


@pytest.mark.parametrize("said", SAID)
def test_words_become_the_error_that_they_mean(said: str) -> None:
    error = refusal(WHERE, said)
    assert type(error) is SAID[said]
    assert isinstance(error, NoSpace | Damaged) or WHERE in error.message
    assert "\n" not in error.message
    assert isinstance(error, Failed) or error.hint()


def test_what_may_pass_by_itself_is_tried_again_and_the_rest_is_not() -> None:
    for said, kind in SAID.items():
        again = refusal(WHERE, said).retry is Retry.BACKOFF
        assert again == issubclass(kind, Unavailable | Untrusted | Damaged | NoSpace | Failed), said


def test_a_server_cannot_say_what_is_wrong_here() -> None:
    hostile = "remote: fatal: bad object\nremote: No space left on device\nfatal: Authentication failed for 'x'"
    assert isinstance(refusal(WHERE, hostile), Denied)
    assert type(refusal(WHERE, "remote: No space left on device")) is Failed


def test_a_word_of_a_server_is_one_short_printable_line() -> None:
    line = words("fatal: \x1b[31mred\r\tand " + "x" * 1000)
    assert len(line) <= 200
    assert line.isprintable()
    assert words("") == "no word"


def test_the_telling_line_is_chosen() -> None:
    assert words("warning: x\nerror: RPC failed\nfatal: y") == "RPC failed"
    assert (
        words("git@h: Permission denied (publickey).\nfatal: Could not read") == "git@h: Permission denied (publickey)."
    )
    assert words(f"fatal: unable to access '{WHERE}/': it broke") == "it broke"


def test_a_certificate_out_of_time_names_the_clock_and_another_name_does_not() -> None:
    for code in (9, 10):
        error = distrusted(WHERE, code)
        assert error is not None
        assert "clock" in error.hint()
        assert error.category is Category.DENIED
    for code in (62, 64):
        assert "another name" in str(distrusted(WHERE, code))
    assert distrusted(WHERE, 0) is None
    assert distrusted(WHERE, 20) is None


def test_a_missing_branch_is_told_with_at_most_ten_others() -> None:
    assert no_such_ref(WHERE, "tag v1", []).hint() == "It has: none."
    assert no_such_ref(WHERE, "branch x", ["a", "b"]).hint() == "It has: a, b."
    hint = no_such_ref(WHERE, "branch x", [f"b{i}" for i in range(30)]).hint()
    assert hint.endswith("b9 and 20 more.")
    assert "is empty" in empty(WHERE).message
