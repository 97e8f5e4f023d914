"""The configuration: nothing given is a configuration; what is wrong is told with its place."""

import os
from pathlib import Path

import pytest

from core.errors import NotFound
from reconciler.config import BadConfig, load, load_config, parse_config, signature
from reconciler.model.config import Config


def test_no_file_and_an_empty_file_are_all_defaults(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("# nothing yet\n")
    assert load_config(None) == load_config(tmp_path / "config.yaml") == Config()


def test_what_is_written_is_what_is_read() -> None:
    text = b"version: 2\nroot: /srv/r\nnode: {name: till-7, labels: {site: lyon}}\ntransfer: {keepFree: 5}\n"
    config = parse_config(text, "config.yaml")
    assert (config.root, config.node.name, config.node.labels, config.transfer.keep_free) == (
        "/srv/r", "till-7", {"site": "lyon"}, 5,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("root: /srv\n", "config.yaml:1:1: has no version; add version: 2"),
        ("version: 2\nroots: /srv\n", "config.yaml:2:1: roots: unknown field; did you mean root?"),
        ("version: 2\nroot: srv\n", "config.yaml:2:7: root: is not an absolute path"),
        ("version: 2\ntransfer:\n  keepFree: 95\n", "config.yaml:3:13: transfer.keepFree: is too large; write 90 or"),
        (
            "version: 2\nruntimes:\n  x: {options: {sandbox: yes please}}\n",
            "config.yaml:3:16: runtimes.x.options: has sandbox: yes please; write sandbox: service, or leave it out",
        ),
        ("version: 3\n", "config.yaml:1:10: version: 3 is not known here; write 2"),
        ("version: 2\n---\nversion: 2\n", "config.yaml:3:1: a configuration is one document"),
        ("version: [\n", "config.yaml:2:1: "),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, says: str) -> None:
    with pytest.raises(BadConfig) as caught:
        parse_config(text.encode(), "config.yaml")
    assert str(caught.value).startswith(says), str(caught.value)


def test_all_faults_are_counted() -> None:
    with pytest.raises(BadConfig, match=r"\(and 1 more\)") as caught:
        parse_config(b"version: 2\nroot: srv\nstate: run\n", "config.yaml")
    assert len(caught.value.faults) == 2


def test_a_file_that_was_named_and_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"config\.yaml is not there"):
        load_config(tmp_path / "config.yaml")


def folder(tmp_path: Path, main: str, **drop_ins: str) -> Path:
    """A configuration with its drop-ins."""
    (tmp_path / "conf.d").mkdir(exist_ok=True)
    (tmp_path / "config.yaml").write_text(main)
    for name, text in drop_ins.items():
        (tmp_path / "conf.d" / f"{name}.yaml").write_text(text)
    return tmp_path / "config.yaml"


def test_drop_ins_are_merged_by_key_in_the_order_of_their_names(tmp_path: Path) -> None:
    file = folder(
        tmp_path,
        "version: 2\nnode: {labels: {a: one, b: one}}\ntransfer: {hosts: [/main], keepFree: 20}\n",
        b="version: 2\nnode: {labels: {b: three}}\n",
        a="version: 2\nnode: {labels: {b: two, c: two}}\ntransfer: {hosts: [/drop]}\n",
    )
    loaded = load(file)
    assert loaded.config.node.labels == {"a": "one", "b": "three", "c": "two"}
    assert loaded.config.transfer.hosts == ("/drop",)
    assert loaded.config.transfer.keep_free == 20
    assert loaded.files == (file, tmp_path / "conf.d/a.yaml", tmp_path / "conf.d/b.yaml")
    assert loaded.origin(("node", "labels", "b")) == f"{tmp_path}/conf.d/b.yaml:2"
    assert loaded.origin(("transfer", "hosts")) == f"{tmp_path}/conf.d/a.yaml:3"
    assert loaded.origin(("transfer", "keepFree")) == f"{file}:3"
    assert loaded.origin(("transfer", "parallel")) == "default"


@pytest.mark.parametrize(
    ("drop_in", "runtimes", "origin"),
    [
        ("runtimes: {fast: null}", {}, "default"),
        ("runtimes: null", {}, "default"),
        ("runtimes: {fast: {path: null}}", {"fast": None}, "default"),
        ("runtimes: {fast: {path: /new}}", {"fast": "/new"}, "conf.d/a.yaml:2"),
        ("runtimes: {}", {"fast": "/old"}, "config.yaml:2"),
    ],
)
def test_null_takes_back_what_was_said_before(
    tmp_path: Path, drop_in: str, runtimes: dict[str, str | None], origin: str
) -> None:
    loaded = load(folder(tmp_path, "version: 2\nruntimes: {fast: {path: /old}}\n", a=f"version: 2\n{drop_in}\n"))
    assert {name: one.path for name, one in loaded.config.runtimes.items()} == runtimes
    assert loaded.origin(("runtimes", "fast", "path")).removeprefix(f"{tmp_path}/") == origin


SYNTAX = (
    "conf.d/c.yaml:2:1: syntax: did not find expected node content while parsing a flow node; "
    "check indentation, quotes and brackets here and above"
)


def test_faults_of_all_files_are_told_at_once_each_in_its_own(tmp_path: Path) -> None:
    file = folder(
        tmp_path,
        "version: 2\nroots: null\ngc: {keepRevisions: 0}\n",
        a="node: {}\n",
        b="version: 2\ngc:\nruntimes: {x: {pth: /y}}\nsources: {pruneLimit: yes}\n",
        c="version: [\n",
        d="version: null\n",
    )
    with pytest.raises(BadConfig) as caught:
        load(file)
    assert [str(fault).removeprefix(f"{tmp_path}/") for fault in caught.value.faults] == [
        "conf.d/a.yaml:1:1: has no version; add version: 2",
        "conf.d/b.yaml:2:4: gc: has no value; write one; null for the default; or leave the key out",
        "conf.d/b.yaml:3:16: runtimes.x.pth: unknown field; did you mean path?",
        "conf.d/b.yaml:4:23: sources.pruneLimit: is not a whole number; write a whole number, without quotes",
        SYNTAX,
        "conf.d/d.yaml:1:1: has no version; add version: 2",
        "config.yaml:2:1: roots: unknown field; did you mean root?",
        "config.yaml:3:21: gc.keepRevisions: is too small; write 1 or more",
    ]


def test_what_is_hidden_or_no_yaml_is_no_drop_in(tmp_path: Path) -> None:
    file = folder(tmp_path, "version: 2\n")
    for name in (".a.yaml", "a.yaml~", "README"):
        (tmp_path / "conf.d" / name).write_text("nonsense: [")
    assert load(file).files == (file,)


@pytest.mark.parametrize(
    ("mode", "fine"), [(0o600, True), (0o644, True), (0o664, True), (0o646, False), (0o666, False)]
)
def test_what_others_may_write_is_refused(tmp_path: Path, mode: int, fine: bool) -> None:
    file = folder(tmp_path, "version: 2\n")
    file.chmod(mode)
    if fine:
        assert load(file).config == Config()
    else:
        with pytest.raises(BadConfig, match=r"can be written by others \(mode"):
            load(file)


@pytest.mark.root
@pytest.mark.parametrize("name", ["config.yaml", "conf.d/a.yaml"])
def test_what_belongs_to_others_is_refused(tmp_path: Path, name: str) -> None:
    file = folder(tmp_path, "version: 2\n", a="version: 2\n")
    os.chown(tmp_path / name, 4711, 0)
    with pytest.raises(BadConfig, match=rf"{name}: belongs to user 4711, who could change it"):
        load(file)


@pytest.mark.root
def test_a_link_is_followed_and_what_it_leads_to_is_judged(tmp_path: Path) -> None:
    file = folder(tmp_path, "")
    real = tmp_path / "real.yaml"
    real.write_text("version: 2\nroot: /srv\n")
    file.unlink()
    file.symlink_to(real)
    assert load(file).config.root == "/srv"
    real.chmod(0o666)
    with pytest.raises(BadConfig, match="can be written by others"):
        load(file)
    real.unlink()
    with pytest.raises(BadConfig, match="leads nowhere"):
        load(file)


def test_a_pipe_a_device_and_a_folder_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/null"), tmp_path):
        with pytest.raises(BadConfig, match="is not a file"):
            load(path)


def test_a_large_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="is larger than 1 MiB"):
        load(folder(tmp_path, "# " + "x" * (1 << 20) + "\nversion: 2\n"))


def test_no_more_than_a_hundred_drop_ins_are_read(tmp_path: Path) -> None:
    file = folder(tmp_path, "version: 2\n", **{f"n{number}": "version: 2\n" for number in range(101)})
    with pytest.raises(BadConfig, match="holds more than 100 files"):
        load(file)


HOSTILE = [
    "version: 2\na: &x [*x]\n",
    "version: 2\na: !!python/object:os.system x\n",
    "[" * 30_000,
    "version: 2\n" + "\0" * 9,
    "version: 2\nroot: /a\nroot: /b\n",
    "version: 2\nnode: {<<: {name: x}}\n",
    "{" * 70 + "}" * 70,
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_hostile_yaml_is_a_fault_with_its_place(tmp_path: Path, hostile: str) -> None:
    with pytest.raises(BadConfig, match=r"config\.yaml:\d+:\d+: "):
        load(folder(tmp_path, hostile))


def test_the_signature_moves_with_every_file_that_counts(tmp_path: Path) -> None:
    file = folder(tmp_path, "version: 2\n", a="version: 2\n")
    seen = [signature(file)]
    assert signature(file) == seen[0]
    (tmp_path / "conf.d/b.yaml").write_text("version: 2\n")
    seen.append(signature(file))
    (tmp_path / "conf.d/b.yaml").chmod(0o666)
    seen.append(signature(file))
    (tmp_path / "conf.d/a.yaml").unlink()
    seen.append(signature(file))
    file.unlink()
    seen.append(signature(file))
    assert len(set(seen)) == 5


def test_what_no_file_says_is_what_the_models_own_defaults_are() -> None:
    """They are taken as they are, since building the model costs each command 12 ms."""
    assert load(None).config == Config()
