"""Whatever containerd may be told: no crash, nothing twice, no key and no comment lost, by steps as at once."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from migrations.config import known, migrate
from migrations.config.plugins import SHORT
from migrations.config.toml_text import toml_value
from migrations.config.tree import BadDocument, Table, leaves, spell
from migrations.config.work import Settings
from reconciler.config import parse_config

quick = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
NAMES = st.sampled_from(["runc", "gpu", "docker.io", "r.example:5000", "https://h.example/v2", "*", "Big_Name", "ünï"])
TEXTS = st.sampled_from(
    (
        *("", "x", "/a/b", "aufs", "native", "podsandbox", "10s", "crun", "https://m.example"),
        *("io.containerd.runc.v1", "io.containerd.runc.v2", "io.containerd.runtime.v1.linux"),
        *("io.containerd.kata.v2", "/usr/bin/containerd-shim-kata-v2", "shim", "true"),
        *("#no comment", 'quo"te\\', "two\nlines"),
    )
)


def values(default: Any) -> st.SearchStrategy[Any]:
    """Values of the type of a key, by its default."""
    if isinstance(default, Mapping):
        return tables(default)
    if isinstance(default, bool):
        return st.booleans()
    if isinstance(default, int | float):
        return st.integers(-1, 40)
    if isinstance(default, list):
        return st.lists(st.sampled_from(["a", "/b", "https://m.example", "A=1"]), max_size=3)
    return TEXTS


def tables(keys: Mapping[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Tables with some of the keys, `*` standing for names."""

    @st.composite
    def build(draw: st.DrawFn) -> dict[str, Any]:
        chosen = draw(st.lists(st.sampled_from(sorted(keys)), unique=True, max_size=4)) if keys else []
        made: dict[str, Any] = {}
        for key in chosen:
            names = draw(st.lists(NAMES, unique=True, min_size=1, max_size=2)) if key == "*" else [key]
            made.update({name: draw(values(keys[key])) for name in names})
        if "*" not in keys and draw(st.integers(0, 9)) == 0:
            made["unheard_of"] = draw(st.sampled_from([1, "x", False, [], ["y"], {}]))
        return made

    return build()


@st.composite
def documents(draw: st.DrawFn, versions: tuple[int, ...] = (1, 2, 3, 4)) -> str:
    """A document of one of the versions, with comments at every key."""
    version = draw(st.sampled_from(versions))
    top = draw(tables({key: value for key, value in known.TOP.items() if key not in ("version", "imports")}))
    ids = draw(st.lists(st.sampled_from(sorted(known.PLUGINS)), unique=True, max_size=4))
    ids = draw(st.permutations(list(dict.fromkeys([*ids, "io.containerd.grpc.v1.cri"]))))
    plugins = {name: draw(tables(known.PLUGINS[name])) for name in ids}
    short = {whole: name for name, whole in SHORT.items()} if version == 1 else {}
    top.pop("unheard_of", None)
    for key in ("disabled_plugins", "required_plugins"):
        if key in top:
            top[key] = [short.get(name, name) for name in draw(st.lists(st.sampled_from(sorted(known.PLUGINS))))]
    whole = {**({"version": version} if version > 1 else {}), **top}
    whole["plugins"] = {short.get(name, name): table for name, table in plugins.items()}
    return "\n".join(written(whole, (), iter(range(10_000)))) + "\n"


def written(table: Mapping[str, Any], at: tuple[str, ...], count: Iterator[int]) -> Iterator[str]:
    """The table as TOML, each key with a comment above and one on its line."""
    for key, value in table.items():
        if not isinstance(value, dict):
            yield f"# c{next(count)}."
            inner = f"[ # c{next(count)}.\n  {toml_value(value)[1:]}" if isinstance(value, list) and value else ""
            yield f"{toml_value(key)} = {inner or toml_value(value)} # c{next(count)}."
    for key, value in table.items():
        if isinstance(value, dict):
            yield ""
            yield f"# c{next(count)}."
            yield f"[{spell((*at, key))}] # c{next(count)}."
            yield from written(value, (*at, key), count)


def keys(text: str) -> list[str]:
    """All leaf keys of a document, read by somebody else."""

    def below(value: dict[str, Any], at: tuple[str, ...]) -> Iterator[str]:
        for key, inner in value.items():
            if isinstance(inner, dict) and inner:
                yield from below(inner, (*at, key))
            else:
                yield spell((*at, key))

    return sorted(below(tomllib.loads(text), ()))


def to(target: int | None, text: bytes) -> migrate.Result:
    document = migrate.read_containerd(text, "config.toml", Settings("/out", ours=target is None))
    return migrate.to_ours(document) if target is None else migrate.to_containerd(document, target)


def tried(target: int | None, text: bytes) -> migrate.Result | None:
    """The result; None where it was refused for the one reason that a sound document can be refused for."""
    try:
        return to(target, text)
    except BadDocument as refusal:
        if "image verifiers" in refusal.message or "no way back" in refusal.message:
            return None
        raise


@quick
@given(documents(), st.sampled_from([2, 3, 4]))
def test_a_document_at_its_target_comes_out_as_it_is(text: str, target: int) -> None:
    if (once := tried(target, text.encode())) is not None:
        again = to(target, once.text)
        assert again.text == once.text
        assert again.files == {}
        assert keys(once.text.decode()) == sorted(entry.key for entry in again.entries)


@quick
@given(documents(versions=(1, 2, 3)))
def test_step_by_step_is_as_at_once(text: str) -> None:
    for path in ((2, 3), (2, 3, 4), (3, 4)):
        at_once, stepwise, files = tried(path[-1], text.encode()), text.encode(), {}
        for target in path:
            step = tried(target, stepwise)
            if step is None:
                break
            stepwise, files = step.text, {**files, **step.files}
        else:
            assert at_once is not None
            assert stepwise.decode() == at_once.text.decode()
            assert files == at_once.files


@quick
@given(documents(), st.sampled_from([2, 3, 4, None]))
def test_every_key_has_exactly_one_outcome(text: str, target: int | None) -> None:
    if (result := tried(target, text.encode())) is not None:
        assert sorted(entry.key for entry in result.entries) == keys(text)
        lines = text.splitlines()
        assert all(entry.key.split(".")[-1].strip('"')[-3:] in lines[entry.line - 1] for entry in result.entries)


@quick
@given(documents(), st.sampled_from([2, 3, 4, None]))
def test_no_comment_is_lost(text: str, target: int | None) -> None:
    if (result := tried(target, text.encode())) is not None:
        comments, found = re.findall(r"# (c\d+\.)", text), re.findall(r"c\d+\.", result.text.decode())
        assert [one for one in comments if found.count(one) != 1] == []


@quick
@given(documents())
def test_what_comes_out_as_ours_is_a_configuration(text: str) -> None:
    result = to(None, text.encode())
    parse_config(result.text, "config.yaml")
    assert b"hunter2" not in result.text


@quick
@given(documents(versions=(1,)))
def test_our_own_version_1_in_yaml_says_the_same_as_in_toml(text: str) -> None:
    tree = migrate.parse(text.encode(), "c", "toml")
    as_yaml = migrate.render(tree, "yaml")
    assert [(path, value(node.value)) for path, node in leaves(migrate.parse(as_yaml, "c", "yaml"))] == [
        (path, value(node.value)) for path, node in leaves(tree)
    ]


def value(found: Any) -> Any:
    return {} if isinstance(found, Table) else found
