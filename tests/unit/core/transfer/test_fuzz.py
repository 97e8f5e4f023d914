"""Whatever comes from outside is read, or refused with an error of ours: nothing else is ever raised."""

import contextlib
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import AgentError
from core.transfer import auth, faults, manifests, platform, reference
from tests.fakes.images import Image, index_of

IMAGE = Image(
    [b"one", b"two"], run={"Env": ["A=b"], "Cmd": ["x"], "User": "1", "WorkingDir": "/", "Volumes": {"/v": {}}}
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner))
SEEDS = [IMAGE.manifest, IMAGE.config, index_of({"mediaType": manifests.OCI_MANIFEST, "digest": "x", "size": 1})]


def changed(value: object, path: list[int], new: object) -> object:
    """`value` with one part, chosen by `path`, replaced by `new`."""
    if not path or not isinstance(value, dict | list) or not value:
        return new
    if isinstance(value, dict):
        key = sorted(value)[path[0] % len(value)]
        return value | {key: changed(value[key], path[1:], new)}
    place = path[0] % len(value)
    return [*value[:place], changed(value[place], path[1:], new), *value[place + 1 :]]


def read_all(data: bytes) -> None:
    for declared in ("", manifests.OCI_MANIFEST, manifests.OCI_INDEX):
        with contextlib.suppress(AgentError):
            manifests.parse_document(data, declared)
    with contextlib.suppress(AgentError):
        manifests.parse_config(data, 2)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SEEDS), st.lists(st.integers(0, 9), max_size=4), VALUES)
def test_a_document_with_one_part_changed_is_read_or_refused(seed: bytes, path: list[int], new: object) -> None:
    read_all(json.dumps(changed(json.loads(seed), path, new)).encode())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    read_all(data)
    faults.said(data)
    faults.tags(data)
    with contextlib.suppress(AgentError):
        auth.parse_token(data)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60) | st.text(alphabet="aA0.:/@[]-_ \n%", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    for read in (reference.parse, platform.parse, auth.origin, manifests.parse_user, manifests.compression):
        with contextlib.suppress(AgentError):
            read(text)
    url = "https://registry.example/v2/a"
    with contextlib.suppress(AgentError):
        auth.next_hop(url, text)
    with contextlib.suppress(AgentError):
        auth.after_reply(url, 401, [text, f"Bearer realm={text}"], auth.Credentials("a", "b"), "scope")


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="aA0.:/@[]-_", max_size=40))
def test_a_reference_that_is_read_makes_a_url_of_its_own_registry(text: str) -> None:
    with contextlib.suppress(AgentError):
        found = reference.parse(text)
        scheme, host, _ = auth.origin(f"{auth.base_url(found.host)}/v2/{found.repository}/manifests/{found.tag}")
        assert scheme in ("http", "https")
        assert found.host.startswith((host, f"[{host}]"))
