"""References to nothing, and circles."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from reconciler.model.identity import Key, Kind
from reconciler.sources.loading import Loaded
from reconciler.sources.references import check_references, check_runtimes, references

Load = Callable[..., Loaded]


def container(name: str, spec: str = "") -> str:
    head = f"apiVersion: reconciler/v1\nkind: Container\nmetadata: {{name: {name}}}\nspec:\n  image: web:1\n"
    return head + "".join(f"  {line}\n" for line in (spec or "network: {mode: none}").splitlines()) + "---\n"


def depends(name: str, *others: str) -> str:
    items = ", ".join(f"{{container: {other}}}" for other in others)
    return container(name, f"network: {{mode: none}}\ndependsOn: [{items}]")


def nothing(key: Key) -> bool:
    return False


def found(loaded: Loaded, known: Callable[[Key], bool] = nothing) -> list[str]:
    assert loaded.faults == ()
    return [str(fault) for fault in check_references(loaded, known)]


EVERYTHING = """\
apiVersion: reconciler/v1
kind: Container
metadata: {name: web}
spec:
  image: web
  sandbox: shared
  env:
    - {name: A, valueFrom: {secret: {name: login, key: user}}}
  mounts:
    - {path: /data, volume: data}
    - {path: /run/s, secret: keys}
  dependsOn: [{container: db}]
---
apiVersion: reconciler/v1
kind: Image
metadata: {name: other}
spec: {ref: "other:1", credentials: {secret: registry}}
"""
KEYS = [
    Key(Kind.IMAGE, "web"), Key(Kind.SANDBOX, "shared"), Key(Kind.SECRET, "login"), Key(Kind.VOLUME, "data"),
    Key(Kind.SECRET, "keys"), Key(Kind.CONTAINER, "db"), Key(Kind.SECRET, "registry"),
]  # fmt: skip


def test_every_reference_of_a_spec_is_known(loaded: Load) -> None:
    web, image = loaded(EVERYTHING).manifests
    named = [key for manifest in (web, image) for _, key in references(manifest.key.kind, manifest.spec)]
    assert named == KEYS


def test_each_reference_to_nothing_is_a_fault_where_it_stands(loaded: Load) -> None:
    assert found(loaded(EVERYTHING)) == [
        (
            "m.yaml:5:10: spec.image: there is no image/web; add an Image of that name, or write an image reference, "
            "such as docker.io/library/web:latest"
        ),
        "m.yaml:6:12: spec.sandbox: there is no sandbox/shared; add a Sandbox of that name, or correct this one",
        (
            "m.yaml:8:44: spec.env[0].valueFrom.secret.name: there is no secret/login; add a Secret of that name, or "
            "correct this one"
        ),
        "m.yaml:10:29: spec.mounts[0].volume: there is no volume/data; add a Volume of that name, or correct this one",
        "m.yaml:11:30: spec.mounts[1].secret: there is no secret/keys; add a Secret of that name, or correct this one",
        (
            "m.yaml:12:27: spec.dependsOn[0].container: there is no container/db; add a Container of that name, or "
            "correct this one"
        ),
        (
            "m.yaml:17:46: spec.credentials.secret: there is no secret/registry; add a Secret of that name, or correct "
            "this one"
        ),
    ]


def test_what_the_store_holds_is_there(loaded: Load) -> None:
    assert found(loaded(EVERYTHING), lambda key: key in KEYS) == []


def test_an_image_reference_refers_to_no_object(loaded: Load) -> None:
    assert found(loaded(container("web"))) == []


def test_an_object_whose_document_is_faulty_is_not_nothing(loaded: Load) -> None:
    volume = "apiVersion: reconciler/v1\nkind: Volume\nmetadata: {name: data}\nspec: {nope: 1}\n"
    web = container("web", "network: {mode: none}\nmounts: [{path: /data, volume: data}]")
    assert check_references(loaded(web + volume), nothing) == ()


def test_a_key_that_a_secret_here_has_not_is_a_fault(loaded: Load) -> None:
    secret = "apiVersion: reconciler/v1\nkind: Secret\nmetadata: {name: login}\nspec: {stringData: {user: me}}\n"
    web = container("web", "network: {mode: none}\nenv: [{name: A, valueFrom: {secret: {name: login, key: pass}}}]")
    assert found(loaded(web + secret)) == [
        "m.yaml:7:58: spec.env[0].valueFrom.secret.key: secret/login has no key pass; it has: user"
    ]


def test_a_circle_is_printed_with_each_place(loaded: Load) -> None:
    text = depends("a", "b") + depends("b", "x", "c") + depends("c", "a") + container("x")
    assert found(loaded(text)) == [
        (
            "m.yaml:23:27: spec.dependsOn[0].container: a circle of dependencies: "
            "a (m.yaml:1) → b (m.yaml:9) → c (m.yaml:17) → a (m.yaml:1); remove one of them"
        )
    ]


def test_a_container_that_waits_for_itself_is_a_circle(loaded: Load) -> None:
    (fault,) = found(loaded(depends("a", "a")))
    assert "a (m.yaml:1) → a (m.yaml:1)" in fault


@pytest.mark.parametrize("shape", [("b", "c"), ("c", "b")])
def test_two_ways_to_one_container_are_no_circle(loaded: Load, shape: tuple[str, str]) -> None:
    assert found(loaded(depends("a", *shape) + depends("b", "c") + depends("c", "d") + container("d"))) == []


def test_each_circle_is_told_once_and_a_long_chain_is_none(loaded: Load) -> None:
    chain = "".join(depends(f"n{i}", f"n{i + 1}") for i in range(1200)) + container("n1200")
    assert found(loaded(chain)) == []
    two = depends("a", "b") + depends("b", "a") + depends("c", "d") + depends("d", "c") + depends("e", "a", "c")
    assert len(found(loaded(two))) == 2


def test_a_runtime_that_the_node_lacks_is_a_fault_at_its_line(loaded: Load) -> None:
    whole = loaded(container("web", "runtime: warp\nnetwork: {mode: none}") + container("other"))
    (fault,) = check_runtimes(whole, ("runc", "crun"))
    assert str(fault).startswith("m.yaml:6:12: spec.runtime: this node has no runtime 'warp'")
    assert "write one of crun, runc" in str(fault)
    assert check_runtimes(whole, ("runc", "warp")) == ()


def test_a_runtime_is_not_judged_while_nobody_knows_what_the_node_has(loaded: Load) -> None:
    assert check_runtimes(loaded(container("web", "runtime: warp\nnetwork: {mode: none}")), ()) == ()
