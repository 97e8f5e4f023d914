"""The specs of the kinds that people write: what is read, what is refused, and in which words."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from core.errors import Invalid
from reconciler.model.identity import WRITTEN_BY_PEOPLE, Kind
from reconciler.model.kinds import ContainerSpec, ImageSpec, SandboxSpec, SecretSpec, VolumeSpec, spec_model
from reconciler.model.kinds.capabilities import CAPABILITIES
from reconciler.model.kinds.checking import check_metadata, check_spec
from reconciler.model.kinds.later import LATER_FIELDS
from reconciler.model.kinds.quantities import Owner
from reconciler.model.kinds.schema import json_schema
from reconciler.model.problems import Problem, shown

LEAST: dict[Kind, dict[str, Any]] = {
    Kind.IMAGE: {"ref": "docker.io/library/nginx:1.27"},
    Kind.SANDBOX: {"runtime": "runc", "network": {"mode": "host"}},
    Kind.CONTAINER: {"image": "web", "network": {"mode": "none"}},
    Kind.VOLUME: {},
    Kind.SECRET: {},
    Kind.SOURCE: {"git": {"url": "https://git.example.org/edge.git"}},
}
FULL_CONTAINER: dict[str, Any] = {
    "image": "web",
    "sandbox": "shared",
    "command": ["/bin/web"],
    "args": ["--port", "80"],
    "env": [
        {"name": "A", "value": ""},
        {"name": "B", "valueFrom": {"secret": {"name": "login", "key": "password"}}},
        {"name": "C", "valueFrom": {"node": "labels.site"}},
    ],
    "workingDir": "/srv/",
    "user": "1000:1000",
    "tty": True,
    "stdin": True,
    "mounts": [
        {"path": "/data", "volume": "data"},
        {"path": "/x", "bind": {"source": "/srv/x", "create": True}, "readOnly": True},
        {"path": "/tmp", "tmpfs": {"size": "64Mi"}},
        {"path": "/run/secrets", "secret": "login"},
        {"path": "/etc/app.conf", "file": "config/app.conf", "fileContent": "aGk="},
    ],
    "resources": {"cpu": "500m", "memory": "128Mi", "pids": 64},
    "security": {
        "readOnlyRootfs": True,
        "privileged": False,
        "capabilities": {"add": ["NET_ADMIN", "CAP_SYS_TIME"], "drop": ["ALL"]},
        "noNewPrivileges": False,
        "seccomp": "unconfined",
    },
    "restart": {"policy": "OnFailure", "maxDelay": "1m"},
    "dependsOn": [{"container": "db"}, {"container": "migrate", "condition": "Succeeded"}],
    "stop": {"signal": "QUIT", "grace": "30s"},
    "log": {"maxSize": "1Mi", "files": 5},
    "init": False,
}


def problems_at(kind: Kind, changes: dict[str, Any]) -> dict[str, str]:
    """What is wrong with the least spec of `kind` with `changes`: message and advice by path."""
    found = check_spec(kind, {**LEAST[kind], **changes})
    return {shown(problem.path): f"{problem.message}; {problem.advice}" for problem in found}


@pytest.mark.parametrize("kind", WRITTEN_BY_PEOPLE)
def test_the_least_spec_of_each_kind_is_valid(kind: Kind) -> None:
    assert check_spec(kind, LEAST[kind]) == []
    spec_model(kind).model_validate(LEAST[kind])


def test_kinds_made_by_the_agent_have_no_spec_to_write() -> None:
    with pytest.raises(Invalid, match="made by the agent"):
        spec_model(Kind.SNAPSHOT)


def test_a_container_with_everything_is_read_into_plain_values() -> None:
    assert check_spec(Kind.CONTAINER, {k: v for k, v in FULL_CONTAINER.items() if k != "mounts"}) == []
    spec = ContainerSpec.model_validate(FULL_CONTAINER)
    assert spec.command == ("/bin/web",)
    assert spec.env[1].value_from is not None
    assert spec.env[1].value_from.secret is not None
    assert spec.env[1].value_from.secret.key == "password"
    assert spec.working_dir == "/srv"
    assert spec.mounts[1].bind is not None
    assert spec.mounts[1].read_only
    assert spec.mounts[2].tmpfs is not None
    assert spec.mounts[2].tmpfs.size == 64 << 20
    assert spec.mounts[4].content() == b"hi"
    assert (spec.resources.cpu, spec.resources.memory, spec.resources.pids) == (500, 128 << 20, 64)
    assert spec.security.capabilities.add == ("CAP_NET_ADMIN", "CAP_SYS_TIME")
    assert spec.restart.max_delay == 60
    assert spec.depends_on[0].condition == "Started"
    assert (spec.stop.signal, spec.stop.grace) == (3, 30)
    assert (spec.log.max_size, spec.log.files) == (1 << 20, 5)


def test_defaults_are_filled_in_when_a_spec_is_read() -> None:
    spec = ContainerSpec.model_validate(LEAST[Kind.CONTAINER])
    assert spec.restart.policy == "Always"
    assert spec.restart.max_delay == 300
    assert spec.stop.grace == 10
    assert spec.security.no_new_privileges
    assert spec.security.seccomp == "default"
    assert (spec.log.max_size, spec.log.files) == (10 << 20, 3)
    assert ImageSpec.model_validate(LEAST[Kind.IMAGE]).pull_policy == "IfNotPresent"
    assert VolumeSpec.model_validate({}).retain
    assert SandboxSpec.model_validate(LEAST[Kind.SANDBOX]).user_namespace.mode == "host"


def test_a_spec_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(VolumeSpec.model_validate({}), "retain", False)  # noqa: B010 - the type checker would refuse it plainly


def test_an_image_is_a_reference_when_it_looks_like_one() -> None:
    assert not ContainerSpec.model_validate(LEAST[Kind.CONTAINER]).image_is_reference
    assert ContainerSpec.model_validate({**LEAST[Kind.CONTAINER], "image": "web:1"}).image_is_reference


def test_a_volume_has_owner_and_mode_as_numbers() -> None:
    spec = VolumeSpec.model_validate({"owner": "10:20", "mode": "0750", "retain": False})
    assert (spec.owner, spec.mode, spec.retain) == (Owner(10, 20), 0o750, False)


def test_a_secret_decodes_both_forms_and_shows_neither() -> None:
    spec = SecretSpec.model_validate({"data": {"a": "aGk="}, "stringData": {"b": "hunter2"}})
    assert spec.contents() == {"a": b"hi", "b": b"hunter2"}
    assert "hunter2" not in repr(spec)
    assert "aGk" not in repr(spec)


@pytest.mark.parametrize("value", [1, 1.5, True, None, "not base64!", ["x"]])
def test_no_problem_of_a_secret_repeats_its_value(value: object) -> None:
    found = check_spec(Kind.SECRET, {"data": {"key": value}})
    assert [problem.path for problem in found] == [("spec", "data", "key")]
    assert str(value) not in found[0].message + found[0].advice


def test_a_key_in_both_forms_of_a_secret_is_refused() -> None:
    found = problems_at(Kind.SECRET, {"data": {"a": "aGk="}, "stringData": {"a": "x"}})
    assert found == {"spec.stringData.a": "is under data too; keep one of them"}


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"pullPolicy": "Never", "update": {"policy": "Digest"}}, "spec.update.policy"),
        ({"archive": "/srv/app.tar", "pullPolicy": "Always"}, "spec.pullPolicy"),
        ({"update": {"policy": "Digest", "interval": "1s"}}, "spec.update.interval"),
    ],
)
def test_a_tag_is_followed_at_a_registry_and_not_too_often(changes: dict[str, Any], path: str) -> None:
    assert list(problems_at(Kind.IMAGE, changes)) == [path]


def test_a_tag_may_be_followed() -> None:
    assert problems_at(Kind.IMAGE, {"pullPolicy": "Always", "update": {"policy": "Digest", "interval": "1m"}}) == {}


LATER: list[tuple[Kind, dict[str, Any], str]] = [
    (Kind.IMAGE, {"update": {"policy": "SemVer"}}, "spec.update.policy"),
    (Kind.IMAGE, {"update": {"range": ">=1"}}, "spec.update.range"),
    (Kind.IMAGE, {"verify": {"require": True}}, "spec.verify"),
    (Kind.CONTAINER, {"mounts": [{"path": "/x", "image": "other"}]}, "spec.mounts[0].image"),
    (Kind.VOLUME, {"size": "1Gi"}, "spec.size"),
    (Kind.SECRET, {"encrypted": {"age": "x"}}, "spec.encrypted"),
    (Kind.SOURCE, {"verify": {"mode": "Head"}}, "spec.verify"),
    (Kind.SOURCE, {"rollback": {"onFailure": True}}, "spec.rollback"),
    (Kind.SOURCE, {"git": {"url": "ssh://git@h/x", "sparse": ["a"]}}, "spec.git.sparse"),
    (Kind.SOURCE, {"git": {"url": "ssh://git@h/x", "ref": {"semver": ">=1"}}}, "spec.git.ref.semver"),
]


@pytest.mark.parametrize(("kind", "changes", "path"), LATER)
def test_a_field_of_later_work_is_refused_as_not_supported_yet(kind: Kind, changes: dict[str, Any], path: str) -> None:
    found = problems_at(kind, changes)
    assert list(found) == [path]
    assert "not supported yet" in found[path]


def test_every_field_in_the_table_of_later_work_is_tried_here() -> None:
    tried = {(kind, path.removeprefix("spec.").replace("[0]", "[]")) for kind, _, path in LATER}
    tried.add((Kind.SOURCE, "bundle"))  # of which a Source has one instead of git
    assert {(kind, field) for kind, fields in LATER_FIELDS.items() for field in fields} <= tried


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        (Kind.SANDBOX, {"runtime": "runc"}),
        (Kind.SANDBOX, {"runtime": "runc", "network": {}}),
        (Kind.CONTAINER, {"image": "web"}),
        (Kind.CONTAINER, {"image": "web", "network": {"ports": [{"host": 8080, "container": 80}]}}),
    ],
)
def test_a_network_left_out_is_a_bridge(kind: Kind, spec: dict[str, Any]) -> None:
    assert check_spec(kind, spec) == []
    network = getattr(spec_model(kind).model_validate(spec), "network", None)
    assert network is None or (network.mode, network.network) == ("bridge", "default")


PORT = {"host": 8080, "container": 80}
NETWORKS: list[tuple[dict[str, Any], str, str]] = [
    ({"mode": "host", "ports": [PORT]}, "spec.network.ports", "is only for a bridge"),
    ({"mode": "none", "network": "lan"}, "spec.network.network", "is only for a bridge"),
    ({"ports": [PORT, {**PORT, "container": 81}]}, "spec.network.ports[1].host", "is that of ports[0] too"),
    ({"ports": [{"host": 0, "container": 80}]}, "spec.network.ports[0].host", "is too small; write 1 or more"),
    ({"ports": [{"host": 8080}]}, "spec.network.ports[0].container", "is missing"),
    ({"ports": [{**PORT, "hostIP": "localhost"}]}, "spec.network.ports[0].hostIP", "is not an IP address"),
    ({"ports": [{**PORT, "protocol": "icmp"}]}, "spec.network.ports[0].protocol", "write tcp or udp"),
]


@pytest.mark.parametrize("kind", [Kind.SANDBOX, Kind.CONTAINER])
@pytest.mark.parametrize(("network", "path", "words"), NETWORKS)
def test_a_wrong_network_is_told_at_its_place(kind: Kind, network: dict[str, Any], path: str, words: str) -> None:
    found = problems_at(kind, {"network": network})
    assert list(found) == [path]
    assert words in found[path]


MACHINE: dict[str, Any] = {"runtime": "vm", "network": {"mode": "none"}}

WRONG: list[tuple[Kind, dict[str, Any], str, str]] = [
    (Kind.IMAGE, {"ref": "localhost/UPPER"}, "spec.ref", "is not an image reference"),
    (Kind.IMAGE, {"ref": "a/b:x y"}, "spec.ref", "is not an image reference: tag 'x y' is not valid; a tag is up to"),
    (Kind.IMAGE, {"ref": ""}, "spec.ref", "is not an image reference"),
    (Kind.IMAGE, {"platform": "linux"}, "spec.platform", "write os/architecture"),
    (Kind.IMAGE, {"snapshotter": "zfs"}, "spec.snapshotter", "write overlayfs or native"),
    (Kind.IMAGE, {"credentials": {"secret": "../x"}}, "spec.credentials.secret", "is not a name"),
    (Kind.IMAGE, {"credentials": "login"}, "spec.credentials", "is not a mapping"),
    (Kind.SANDBOX, {"hostname": "a b"}, "spec.hostname", "is not a host name"),
    (Kind.SANDBOX, {"dns": {"servers": ["dns.local"]}}, "spec.dns.servers[0]", "is not an IP address"),
    (Kind.SANDBOX, {"dns": {"servers": "9.9.9.9"}}, "spec.dns.servers", "is not a list"),
    (Kind.SANDBOX, {"sysctls": {"kernel.panic": "1"}}, 'spec.sysctls["kernel.panic"]', "belongs to a sandbox"),
    (Kind.SANDBOX, {"sysctls": {"net.ipv4.x": "1"}}, 'spec.sysctls["net.ipv4.x"]', "node's own network"),
    (Kind.SANDBOX, {**MACHINE, "vm": {"memory": "16Mi"}}, "spec.vm.memory", "write 96Mi or more"),
    (Kind.SANDBOX, {**MACHINE, "vm": {"memory": 256}}, "spec.vm.memory", "is not text"),
    (Kind.SANDBOX, {**MACHINE, "vm": {"cpus": 0}}, "spec.vm.cpus", "write 1 or more"),
    (Kind.SANDBOX, {**MACHINE, "vm": {"kernel": "boot/vmlinuz"}}, "spec.vm.kernel", "begins with /"),
    (Kind.SANDBOX, {"runtime": "vm", "network": {"mode": "host"}}, "spec.network.mode", "write bridge or none"),
    (Kind.SANDBOX, {**MACHINE, "shareProcessNamespace": True}, "spec.shareProcessNamespace", "leave it out"),
    (Kind.SANDBOX, {**MACHINE, "userNamespace": {"mode": "auto"}}, "spec.userNamespace.mode", "leave it out"),
    (Kind.SANDBOX, {**MACHINE, "sysctls": {"kernel.shmmax": "1"}}, "spec.sysctls", "the guest's kernel"),
    (Kind.SANDBOX, {"runtime": "crun", "vm": {"cpus": 2}}, "spec.vm", "write runtime: vm"),
    (Kind.SANDBOX, {"shareProcessNamespace": 0}, "spec.shareProcessNamespace", "write true or false"),
    (Kind.CONTAINER, {"command": "sleep 1"}, "spec.command", "is not a list"),
    (Kind.CONTAINER, {"args": ["-n", 1]}, "spec.args[1]", "is not text"),
    (Kind.CONTAINER, {"tty": "yes"}, "spec.tty", "write true or false"),
    (Kind.CONTAINER, {"workingDir": "srv"}, "spec.workingDir", "begins with /"),
    (Kind.CONTAINER, {"workingDir": "/a/../b"}, "spec.workingDir", "no .. in it"),
    (Kind.CONTAINER, {"user": "a:b:c"}, "spec.user", "is not a user"),
    (Kind.CONTAINER, {"user": 1000}, "spec.user", "is not text"),
    (Kind.CONTAINER, {"env": [{"name": "A=B", "value": "x"}]}, "spec.env[0].name", "without '='"),
    (Kind.CONTAINER, {"env": [{"name": "A"}]}, "spec.env[0]", "exactly one of value, valueFrom"),
    (Kind.CONTAINER, {"env": [{"name": "A", "valueFrom": {}}]}, "spec.env[0].valueFrom", "exactly one of"),
    (Kind.CONTAINER, {"env": [{"name": "A", "valueFrom": {"node": "ip"}}]}, "spec.env[0].valueFrom.node", "labels."),
    (Kind.CONTAINER, {"mounts": [{"path": "/x"}]}, "spec.mounts[0]", "exactly one of volume, bind, tmpfs"),
    (Kind.CONTAINER, {"mounts": [{"path": "/", "volume": "v"}]}, "spec.mounts[0].path", "the root itself"),
    (Kind.CONTAINER, {"mounts": [{"path": "/x", "bind": {"source": "x"}}]}, "spec.mounts[0].bind.source", "begins"),
    (Kind.CONTAINER, {"mounts": [{"path": "/x", "file": "/etc/x"}]}, "spec.mounts[0].file", "relative"),
    (Kind.CONTAINER, {"mounts": [{"path": "/x", "tmpfs": {"size": "-1"}}]}, "spec.mounts[0].tmpfs.size", "bytes"),
    (Kind.CONTAINER, {"resources": {"pids": 0}}, "spec.resources.pids", "write 1 or more"),
    (Kind.CONTAINER, {"resources": {"pids": 2**40}}, "spec.resources.pids", "or less"),
    (Kind.CONTAINER, {"resources": {"pids": True}}, "spec.resources.pids", "is not a whole number"),
    (Kind.CONTAINER, {"security": {"capabilities": {"add": ["SUPER"]}}}, "spec.security.capabilities.add[0]", "is not"),
    (
        Kind.CONTAINER,
        {"security": {"seccomp": "off"}},
        "spec.security.seccomp",
        "write default, unconfined, or the path of a profile",
    ),
    (Kind.CONTAINER, {"restart": {"policy": "always"}}, "spec.restart.policy", "write Always, OnFailure or Never"),
    (Kind.CONTAINER, {"restart": {"maxDelay": "5"}}, "spec.restart.maxDelay", "is not a duration"),
    (Kind.CONTAINER, {"log": {"files": 0}}, "spec.log.files", "write 1 or more"),
    (Kind.CONTAINER, {"stop": {"signal": "HALT"}}, "spec.stop.signal", "is not a signal"),
    (Kind.VOLUME, {"mode": "rwx"}, "spec.mode", "is not a file mode"),
    (Kind.VOLUME, {"owner": "root"}, "spec.owner", "is not an owner"),
    (Kind.SECRET, {"data": {"a/b": "aGk="}}, 'spec.data["a/b"]', "is not a key of a Secret"),
    (Kind.SECRET, {"stringData": {"..": "x"}}, 'spec.stringData[".."]', "is not a key of a Secret"),
]


@pytest.mark.parametrize(("kind", "changes", "path", "words"), WRONG)
def test_a_wrong_value_is_refused_where_it_stands(kind: Kind, changes: dict[str, Any], path: str, words: str) -> None:
    found = problems_at(kind, changes)
    assert list(found) == [path]
    assert words in found[path]


def test_runtime_and_network_belong_to_the_sandbox_when_one_is_named() -> None:
    found = problems_at(Kind.CONTAINER, {"sandbox": "shared", "runtime": "runc"})
    assert list(found) == ["spec.runtime", "spec.network"]


def test_a_mount_and_a_variable_come_from_one_place_each() -> None:
    found = problems_at(Kind.CONTAINER, {
        "mounts": [{"path": "/x", "volume": "v", "secret": "s"}],
        "env": [{"name": "A", "value": "x", "valueFrom": {"node": "name"}}],
    })  # fmt: skip
    assert list(found) == ["spec.mounts[0].secret", "spec.env[0].valueFrom"]


def test_two_of_one_path_variable_or_dependency_are_refused() -> None:
    found = problems_at(Kind.CONTAINER, {
        "mounts": [{"path": "/x", "volume": "v"}, {"path": "/x", "volume": "w"}],
        "env": [{"name": "A", "value": "x"}, {"name": "A", "value": "y"}],
        "dependsOn": [{"container": "db"}, {"container": "db"}],
    })  # fmt: skip
    assert list(found) == ["spec.mounts[1].path", "spec.env[1].name", "spec.dependsOn[1].container"]


def test_an_unknown_field_names_the_one_that_was_meant() -> None:
    found = problems_at(Kind.CONTAINER, {"mounts": [{"path": "/x", "volum": "v", "volume": "v"}], "enviroment": []})
    assert found["spec.mounts[0].volum"] == "unknown field; did you mean volume?"
    assert found["spec.enviroment"].startswith("unknown field; known here: image, sandbox,")


def test_the_python_name_of_a_field_is_not_its_name() -> None:
    assert list(problems_at(Kind.CONTAINER, {"working_dir": "/x"})) == ["spec.working_dir"]


def test_all_problems_of_a_spec_are_told_at_once() -> None:
    spec = {"image": "Web", "tty": 1, "stop": {"grace": "x"}, "nope": 1}
    assert len(check_spec(Kind.CONTAINER, spec)) == 4


@pytest.mark.parametrize(
    ("metadata", "path"),
    [
        ({}, ("metadata", "name")),
        ({"name": "../../x"}, ("metadata", "name")),
        ({"name": "a" * 300}, ("metadata", "name")),
        ({"name": "Web"}, ("metadata", "name")),
        ({"name": "a..b"}, ("metadata", "name")),
        ({"name": "a\n"}, ("metadata", "name")),
        ({"name": "web", "labels": {"a": 1}}, ("metadata", "labels", "a")),
        ({"name": "web", "labels": {"a": "b c"}}, ("metadata", "labels", "a")),
        ({"name": "web", "labels": {" ": "b"}}, ("metadata", "labels", " ")),
        ({"name": "web", "annotations": {"a": []}}, ("metadata", "annotations", "a")),
        ({"name": "web", "uid": "x"}, ("metadata", "uid")),
        ({"name": "web", "namespace": "x"}, ("metadata", "namespace")),
    ],
)
def test_metadata_that_cannot_be_is_refused(metadata: dict[str, Any], path: tuple[str, ...]) -> None:
    assert [problem.path for problem in check_metadata(metadata)] == [path]


def test_the_kernel_has_41_capabilities() -> None:
    assert len(CAPABILITIES) == 41
    assert CAPABILITIES[21] == "CAP_SYS_ADMIN"
    assert CAPABILITIES[40] == "CAP_CHECKPOINT_RESTORE"


def test_paths_are_shown_as_people_write_them() -> None:
    assert shown(("spec", "mounts", 1, "path")) == "spec.mounts[1].path"
    assert shown(("metadata", "labels", "a.b/c")) == 'metadata.labels["a.b/c"]'
    assert "\x1b" not in shown(("metadata", "labels", "\x1b[31m"))
    assert Problem(("a",), "b").advice == ""


@pytest.mark.parametrize("kind", WRITTEN_BY_PEOPLE)
def test_the_schema_of_a_kind_is_of_the_whole_document(kind: Kind) -> None:
    schema = json_schema(kind)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["properties"]["kind"] == {"const": kind.value}
    assert schema["additionalProperties"] is False
    assert schema["properties"]["spec"]["additionalProperties"] is False
    references = [text for text in str(schema).split("'") if text.startswith("#/")]
    assert all(text.removeprefix("#/$defs/") in schema["$defs"] for text in references)


def test_the_schema_says_what_a_person_may_write_and_no_more() -> None:
    schema = json_schema(Kind.CONTAINER)
    mount = schema["$defs"]["Mount"]
    assert "fileContent" not in mount["properties"]
    assert "workingDir" in schema["properties"]["spec"]["properties"]
    assert "fileContent" not in str(schema)
    assert "seccompContent" not in str(schema)
    assert schema["properties"]["spec"]["required"] == ["image"]
    assert schema["$defs"]["Resources"]["properties"]["memory"]["anyOf"][0]["examples"] == ["128Mi", "1Gi"]


def test_a_source_has_one_origin_and_one_ref() -> None:
    url = {"url": "https://git.example.org/edge.git"}
    assert problems_at(Kind.SOURCE, {"folder": "/srv/edge"}) == {"spec.folder": "is given beside git; keep one of them"}
    assert check_spec(Kind.SOURCE, {"folder": "/srv/edge"}) == []
    (none,) = check_spec(Kind.SOURCE, {"path": "x"})
    assert (shown(none.path), none.message) == ("spec", "names no origin")
    both = problems_at(Kind.SOURCE, {"git": {**url, "ref": {"branch": "main", "tag": "v1"}}})
    assert both == {"spec.git.ref.branch": "is given beside tag; keep one of them"}
    bundle = {shown(one.path): one.message for one in check_spec(Kind.SOURCE, {"bundle": "/media/usb"})}
    assert bundle == {"spec.bundle": "is not supported yet"}


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"git": {"url": "ext::sh -c touch% /tmp/pwn"}}, "spec.git.url"),
        ({"git": {"url": "--upload-pack=touch /tmp/pwn"}}, "spec.git.url"),
        ({"git": {"url": "https://u:p@git.example.org/x"}}, "spec.git.url"),
        ({"git": {"url": "ssh://git@h/x", "ref": {"branch": "--output=/tmp/x"}}}, "spec.git.ref.branch"),
        ({"git": {"url": "ssh://git@h/x", "ref": {"commit": "abc"}}}, "spec.git.ref.commit"),
        ({"path": "../other"}, "spec.path"),
        ({"path": "/etc"}, "spec.path"),
        ({"interval": "10ms"}, "spec.interval"),
        ({"interval": "soon"}, "spec.interval"),
        ({"prune": "yes"}, "spec.prune"),
        ({"values": {"a}b": "x"}}, "spec.values.a}b"),
    ],
)
def test_what_a_source_may_not_say_is_refused_where_it_stands(changes: dict[str, Any], path: str) -> None:
    found = check_spec(Kind.SOURCE, {**LEAST[Kind.SOURCE], **changes})
    assert [shown(one.path).replace('["', ".").replace('"]', "") for one in found] == [path]
