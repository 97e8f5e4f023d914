"""From files to manifests, and where faults are said to stand."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from reconciler.model.identity import Key, Kind
from reconciler.sources.loading import Loaded

Load = Callable[..., Loaded]
Faults = Callable[..., list[str]]

IMAGE = "apiVersion: reconciler/v1\nkind: Image\nmetadata:\n  name: web\nspec:\n  ref: web:1\n"
WHOLE = """\
# the web server
apiVersion: reconciler/v1
kind: Container
metadata:
  name: web
  labels: {app: web}
  annotations:
    note: "1.10"
spec:
  image: web
  network: {mode: none}
  env:
    - name: GREETING
      value: ${values.greeting}, ${node.name} in ${node.labels.site}; $${HOME} ${HOME}
"""


def test_a_manifest_is_what_was_written_and_no_more(loaded: Load) -> None:
    found = loaded(WHOLE + "---\n" + IMAGE)
    assert found.faults == ()
    web, image = found.manifests
    assert web.key == Key(Kind.CONTAINER, "web")
    assert (web.labels, web.annotations) == ({"app": "web"}, {"note": "1.10"})
    assert web.spec == {
        "image": "web",
        "network": {"mode": "none"},
        "env": [{"name": "GREETING", "value": "hello, edge-1 in north; ${HOME} ${HOME}"}],
    }
    assert str(web.origin) == "m.yaml:2"
    assert str(image.origin) == "m.yaml:16"
    assert found.keys == {web.key, image.key}


def test_a_place_can_be_found_later(loaded: Load) -> None:
    (web,) = loaded(WHOLE).manifests
    assert str(web.fault(("spec", "env", 0, "value"), "wrong", "do")) == "m.yaml:14:14: spec.env[0].value: wrong; do"
    assert str(web.fault(("spec", "network", "mode"), "wrong")) == "m.yaml:11:19: spec.network.mode: wrong"
    assert web.fault(("spec", "stop", "grace"), "x").line == 9


def test_documents_and_files_without_content_are_valid(loaded: Load) -> None:
    assert loaded("", "# nothing\n", "---\n---\n") == Loaded((), (), frozenset())


def test_a_spec_that_may_be_empty_may_be_left_out(loaded: Load) -> None:
    (volume,) = loaded("apiVersion: reconciler/v1\nkind: Volume\nmetadata: {name: data}\n").manifests
    assert volume.spec == {}


def test_all_faults_of_all_files_are_told_at_once(faults: Faults) -> None:
    bad = WHOLE.replace("image: web", "imag: web").replace("name: web", "name: Web")
    assert faults(bad, IMAGE + "---\na: [\n", c="kind: Image\n") == [
        ('m.yaml:5:9: metadata.name: is not a name; '
        "use up to 63 of a-z, 0-9, '-' and single '.', beginning and ending with a-z or 0-9"),
        "m.yaml:9:1: spec.image: is missing; write the name of an Image object, or an image reference",
        "m.yaml:10:3: spec.imag: unknown field; did you mean image?",
        ("m1.yaml:9:1: syntax: did not find expected node content while parsing a flow node; "
        "check indentation, quotes and brackets here and above"),
        "c:1:1: apiVersion: is missing; write apiVersion: reconciler/v1",
        "c:1:1: metadata: is missing; write metadata: {name: …}",
        "c:1:1: spec.ref: is missing; write the image's reference, such as docker.io/library/nginx:1.27",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("kind: Image", "kind: image", ("2:7: kind: there is no kind image; write one of Image, Sandbox, Container, "
         "Volume, Secret, Source")),
        ("kind: Image", "kind: Rollout", "2:7: kind: Rollout is not supported yet; leave this document out"),
        ("kind: Image", "kind: Node", "2:7: kind: Node objects are made by the agent; leave this document out"),
        ("kind: Image", "kind: Event", "2:7: kind: Event objects are made by the agent; leave this document out"),
        ("kind: Image", "kind: [x]", ("2:7: kind: there is no kind ['x']; write one of Image, Sandbox, Container, "
         "Volume, Secret, Source")),
        ("reconciler/v1", "v1", "1:13: apiVersion: v1 is not known here; write reconciler/v1"),
        ("  ref: web:1", "  ref: web:1\nstatus: {}", "7:1: status: is written by the agent; leave it out"),
        ("  ref: web:1", "  ref: web:1\nextra: {}",
         "7:1: extra: unknown field; known here: apiVersion, kind, metadata, spec"),
        ("  name: web", "  name: web\n  uid: abc", "5:3: metadata.uid: is written by the agent; leave it out"),
        ("  ref: web:1", "  ref:", "6:7: spec.ref: has no value; write one, or leave the key out"),
        ("  ref: web:1", "  ref: ~", "6:8: spec.ref: has no value; write one, or leave the key out"),
        ("  ref: web:1", "  ref: web:1\n  ref: web:2", "7:3: spec.ref: stands in line 6 already; keep one of the two"),
        ("  ref: web:1", "  ref: &x web:1", ("6:8: spec.ref: anchors (&x) are not read; remove it, and write values "
         "out")),
        ("  ref: web:1", "  ref: [web]", "6:8: spec.ref: is not text; write text"),
        ("spec:\n  ref: web:1", "spec: web", "5:7: spec: is not a mapping; write key: value pairs, indented below it"),
        ("metadata:\n  name: web", "metadata: web", "3:11: metadata: is not a mapping; write metadata: {name: …}"),
        ("  ref: web:1", "  ref: ${values.nope}:1", ("6:8: spec.ref: ${values.nope} is not defined; values given: "
         "greeting; write $${ for a literal ${")),
        ("  ref: web:1", "  ref: ${node.arch}", ("6:8: spec.ref: ${node.arch} is not defined; the node has: name, "
         "labels.site")),
    ],
)  # fmt: skip
def test_one_thing_wrong_is_one_fault_where_it_stands(faults: Faults, old: str, new: str, fault: str) -> None:
    assert faults(IMAGE.replace(old, new)) == [f"m.yaml:{fault}"]


@pytest.mark.parametrize("text", ["just words\n", "- a\n- b\n", "42\n"])
def test_a_document_that_is_no_mapping_is_no_manifest(faults: Faults, text: str) -> None:
    (fault,) = faults(text)
    assert fault.endswith("is not a manifest; begin with apiVersion, kind, metadata and spec")


def test_a_variable_may_stand_in_a_name_and_a_label_but_not_in_a_key(loaded: Load) -> None:
    text = IMAGE.replace("name: web", "name: web-${node.name}\n  labels: {site: '${node.labels.site}'}")
    (image,) = loaded(text).manifests
    assert image.key.name == "web-edge-1"
    assert image.labels == {"site": "north"}
    (fault,) = loaded(IMAGE.replace("name: web", "name: web\n  labels: {'${node.name}': x}")).faults
    assert "not a label's key" in fault.message


def test_what_a_variable_holds_is_not_substituted_again_nor_read_as_yaml(loaded: Load) -> None:
    (web,) = loaded(WHOLE.replace("${values.greeting}, ", "$${values.greeting} ")).manifests
    assert web.spec["env"][0]["value"].startswith("${values.greeting} edge-1")


def test_two_files_that_define_one_object_are_both_named(loaded: Load) -> None:
    found = loaded(IMAGE, IMAGE)
    assert [str(fault) for fault in found.faults] == [
        "m1.yaml:1:1: image/web is defined in m.yaml:1 too; keep one of the two"
    ]


def test_one_file_that_defines_an_object_twice_is_refused(faults: Faults) -> None:
    assert faults(IMAGE + "---\n" + IMAGE) == ["m.yaml:8:1: image/web is defined in m.yaml:1 too; keep one of the two"]


def test_a_document_with_faults_still_counts_as_that_object(loaded: Load) -> None:
    found = loaded(IMAGE.replace("ref", "reff"))
    assert found.manifests == ()
    assert found.keys == {Key(Kind.IMAGE, "web")}


def test_an_empty_value_and_a_duplicate_and_an_unknown_field_are_told_together(faults: Faults) -> None:
    text = IMAGE + "  ref: web:2\n  platform:\n  nope: 1\n"
    assert [fault.split(": ")[0] for fault in faults(text)] == ["m.yaml:7:3", "m.yaml:8:12", "m.yaml:9:3"]
