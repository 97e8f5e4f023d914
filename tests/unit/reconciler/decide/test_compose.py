"""From a manifest and an image to what the runtime is asked for."""

from typing import Any

import pytest

from core.errors import Invalid
from core.runtime.ports import SandboxPhase, SandboxState
from core.runtime.resourcing import Resources
from core.runtime.spec import DEFAULT_PATH, MountKind, User
from core.transfer.ports import ImageConfig
from reconciler.decide.compose import (
    Places,
    command,
    environment,
    mounts,
    resources,
    security,
    wanted_task,
    working_dir,
)
from reconciler.model.kinds.container import ContainerSpec


def spec(**fields: Any) -> ContainerSpec:
    """A container's spec with these fields."""
    return ContainerSpec.model_validate({"image": "base", "sandbox": "s", **fields})


ENTRY, CMD = ("/entry", "-e"), ("run", "it")


@pytest.mark.parametrize(
    ("fields", "entrypoint", "cmd", "line"),
    [
        ({}, ENTRY, CMD, "/entry -e run it"),
        ({}, ENTRY, (), "/entry -e"),
        ({}, (), CMD, "run it"),
        ({"args": ["x"]}, ENTRY, CMD, "/entry -e x"),
        ({"args": []}, ENTRY, CMD, "/entry -e"),
        ({"command": ["/c"]}, ENTRY, CMD, "/c"),
        ({"command": ["/c"], "args": ["x"]}, ENTRY, CMD, "/c x"),
        ({"command": [], "args": ["x"]}, ENTRY, CMD, "x"),
        ({"args": ["x"]}, (), (), "x"),
    ],
)
def test_command_replaces_entrypoint_and_cmd_and_args_replace_cmd(
    fields: dict[str, Any], entrypoint: tuple[str, ...], cmd: tuple[str, ...], line: str
) -> None:
    assert command(spec(**fields), ImageConfig(entrypoint=entrypoint, cmd=cmd)) == line.split()


@pytest.mark.parametrize("fields", [{}, {"args": []}, {"command": []}])
def test_nothing_to_run_is_said_so(fields: dict[str, Any]) -> None:
    with pytest.raises(Invalid, match="what to run"):
        command(spec(**fields), ImageConfig())


def variable(name: str, **source: Any) -> dict[str, Any]:
    """A variable whose value comes from somewhere."""
    return {"name": name, "valueFrom": source}


def test_the_manifests_variables_win_over_the_images_and_those_over_the_default_path() -> None:
    image = ImageConfig(env=("A=image", "B=image", "PATH=/image"))
    assert environment(spec(env=[{"name": "B", "value": "mine"}]), image, {}, {}) == [
        "PATH=/image",
        "A=image",
        "B=mine",
    ]
    assert environment(spec(), ImageConfig(), {}, {}) == [f"PATH={DEFAULT_PATH}"]


@pytest.mark.parametrize(("pair", "kept"), [("A=b=c", "A=b=c"), ("A=", "A="), ("A", "A=")])
def test_an_images_variable_is_split_at_its_first_equals_sign(pair: str, kept: str) -> None:
    assert environment(spec(), ImageConfig(env=(pair,)), {}, {})[1:] == [kept]


def test_a_value_comes_from_a_secret_or_from_the_node() -> None:
    fields = [variable("A", secret={"name": "login", "key": "user"}), variable("B", node="name")]
    found = environment(spec(env=fields), ImageConfig(), {"login": {"user": "mé".encode()}}, {"name": "edge-1"})
    assert found[1:] == ["A=mé", "B=edge-1"]


def test_a_node_fact_that_the_node_has_not_is_empty() -> None:
    assert environment(spec(env=[variable("B", node="labels.site")]), ImageConfig(), {}, {})[1:] == ["B="]


@pytest.mark.parametrize(
    ("secrets", "message"),
    [
        ({"login": {"a": b"", "b": b""}}, "env A: secret login has no key user; it has: a, b"),
        ({"login": {}}, "it has: none"),
        ({}, "it has: none"),
        ({"login": {"user": b"\xff\xfe"}}, "is not text; mount it"),
    ],
)
def test_a_secrets_key_that_is_missing_or_no_text_is_named_and_no_value_told(
    secrets: dict[str, dict[str, bytes]], message: str
) -> None:
    fields = [variable("A", secret={"name": "login", "key": "user"})]
    with pytest.raises(Invalid) as caught:
        environment(spec(env=fields), ImageConfig(), secrets, {})
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("fields", "image", "path"),
    [({"workingDir": "/w"}, "/i", "/w"), ({}, "/i", "/i"), ({}, "", "/")],
)
def test_the_working_dir_is_the_manifests_else_the_images_else_the_root(
    fields: dict[str, Any], image: str, path: str
) -> None:
    assert working_dir(spec(**fields), ImageConfig(working_dir=image)) == path


def test_limits_are_cores_bytes_and_processes() -> None:
    limits = resources(spec(resources={"cpu": "1500m", "memory": "64Mi", "pids": 9}).resources)
    assert limits == Resources(1.5, 64 << 20, 9)
    assert resources(spec().resources) == Resources(None, None)


def test_security_is_taken_over() -> None:
    made = security(
        spec(
            security={
                "readOnlyRootfs": True,
                "noNewPrivileges": False,
                "seccomp": "unconfined",
                "capabilities": {"drop": ["ALL"], "add": ["CAP_CHOWN"]},
            }
        ),
        Places(),
    )
    assert (made.add, made.drop) == (("CAP_CHOWN",), ("ALL",))
    assert (made.readonly_rootfs, made.no_new_privileges, made.unconfined) == (True, False, True)
    assert security(spec(), Places()).no_new_privileges


MOUNTS = [
    {"path": "/z", "volume": "data", "readOnly": True},
    {"path": "/a", "bind": {"source": "/srv"}},
    {"path": "/t", "tmpfs": {"size": "1Mi"}},
    {"path": "/s", "secret": "tls"},
    {"path": "/f", "file": "app.conf", "fileContent": "aGk="},
]
PLACES = Places(
    volumes={"data": "/volumes/data"},
    secrets={"tls": "/secrets/tls"},
    files={4: "/files/4"},
    anonymous={"/var/lib": "/attempts/v0", "/z/": "/attempts/v1"},
)


def test_mounts_keep_the_manifests_order_after_the_images_own() -> None:
    made = mounts(spec(mounts=MOUNTS), PLACES)
    assert [mount.path for mount in made] == ["/var/lib", "/z", "/a", "/t", "/s", "/f"]


def test_an_images_volume_gives_way_to_a_mount_at_its_path() -> None:
    assert [mount.path for mount in mounts(spec(), PLACES)] == ["/var/lib", "/z/"]


def test_each_mount_has_its_source_and_secrets_and_files_are_read_only() -> None:
    made = {mount.path: mount for mount in mounts(spec(mounts=MOUNTS), PLACES)}
    assert {path: (one.source, one.read_only) for path, one in made.items() if one.kind is not MountKind.TMPFS} == {
        "/var/lib": ("/attempts/v0", False),
        "/z": ("/volumes/data", True),
        "/a": ("/srv", False),
        "/s": ("/secrets/tls", True),
        "/f": ("/files/4", True),
    }
    assert (made["/t"].kind, made["/t"].size) == (MountKind.TMPFS, 1 << 20)


def test_a_task_is_wanted_in_its_sandboxs_group_namespaces_and_files() -> None:
    sandbox = SandboxState("s-1", SandboxPhase.READY, {"uts": "/ns/uts"}, {"/etc/hosts": "/h"}, "/group/s-1")
    made = wanted_task("web-1", spec(tty=True), ["/c"], ["A=b"], "/", User(1, 2), PLACES, sandbox)
    assert made.cgroup == "/group/s-1/web-1"
    assert (made.namespaces, made.files, made.terminal) == (sandbox.namespaces, sandbox.files, True)
    assert (list(made.args), list(made.env), made.user) == (["/c"], ["A=b"], User(1, 2))
