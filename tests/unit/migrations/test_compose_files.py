"""Compose files as manifests: what of them goes where, and what has no place."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.errors import Invalid
from migrations.config.work import Outcome
from tests.converting import Converted, convert


def service(line: str, variables: dict[str, str] | None = None) -> Converted:
    """A file with one service, called web."""
    return convert("compose", f"services:\n  web:\n    image: nginx:1\n    {line}\n", variables=variables)


def test_a_service_alone_is_a_container_in_a_sandbox() -> None:
    done = service("")
    assert (done.names("Container"), done.names("Sandbox")) == (["web"], ["shop"])
    assert done.spec("Container", "web") == {"image": "nginx:1", "sandbox": "shop", "restart": {"policy": "Never"}}


def test_services_of_one_network_share_a_sandbox_and_the_others_do_not() -> None:
    text = "services:\n" + "".join(
        f"  {name}: {{image: 'x:1', {rest}}}\n"
        for name, rest in (
            ("a", "networks: [front]"),
            ("b", "networks: [front, back]"),
            ("c", "networks: {back: {}}"),
            ("d", "networks: [alone]"),
            ("e", "network_mode: none"),
            ("f", "network_mode: 'service:e'"),
        )
    )
    done = convert("compose", text)
    assert {name: done.spec("Container", name)["sandbox"] for name in "abcdef"} == {
        **dict.fromkeys("abc", "shop"),
        "d": "d",
        **dict.fromkeys("ef", "shop-2"),
    }
    assert done.spec("Sandbox", "shop-2")["network"] == {"mode": "none"}
    assert any("127.0.0.1" in line for line in done.result.told)


@pytest.mark.parametrize(
    ("restart", "policy"),
    [("'no'", "Never"), ("always", "Always"), ("unless-stopped", "Always"), ("on-failure", "OnFailure")],
)
def test_a_restart_policy_means_the_same(restart: str, policy: str) -> None:
    assert service(f"restart: {restart}").spec("Container", "web")["restart"] == {"policy": policy}


def test_tries_are_not_counted_and_it_is_told() -> None:
    done = service("restart: on-failure:3")
    assert done.entry("restart").outcome is Outcome.DROPPED
    assert done.entry("restart").to == "container/web restart.policy"


@pytest.mark.parametrize(
    ("ports", "ours"),
    [
        ('"8080:80"', [{"host": 8080, "container": 80}]),
        ('"127.0.0.1:53:53/udp"', [{"host": 53, "container": 53, "protocol": "udp", "hostIP": "127.0.0.1"}]),
        ('"80-81:90-91"', [{"host": 80, "container": 90}, {"host": 81, "container": 91}]),
        ('{target: 80, published: "8080", host_ip: "::1"}', [{"host": 8080, "container": 80, "hostIP": "::1"}]),
    ],
)
def test_ports_are_mapped_by_the_sandbox(ports: str, ours: list[dict[str, object]]) -> None:
    assert service(f"ports: [{ports}]").spec("Sandbox", "shop")["network"] == {"ports": ours}


def test_a_port_that_compose_would_choose_is_dropped() -> None:
    assert service('ports: ["80"]').entry("ports[0]").outcome is Outcome.DROPPED


@pytest.mark.parametrize(
    ("volume", "mount"),
    [
        ("./data:/x:ro", {"path": "/x", "bind": {"source": "/srv/shop/data", "create": True}, "readOnly": True}),
        ("../up:/x", {"path": "/x", "bind": {"source": "/srv/up", "create": True}}),
        ("pg:/x", {"path": "/x", "volume": "pg"}),
        ("/x", {"path": "/x", "volume": "web-x"}),
        (
            "{type: bind, source: /a, target: /x, bind: {create_host_path: false}}",
            {"path": "/x", "bind": {"source": "/a"}},
        ),
        ("{type: tmpfs, target: /x, tmpfs: {size: 1m}}", {"path": "/x", "tmpfs": {"size": "1Mi"}}),
    ],
)
def test_a_volume_is_a_mount(volume: str, mount: dict[str, object]) -> None:
    assert service(f"volumes:\n      - {volume}").spec("Container", "web")["mounts"] == [mount]


def test_variables_are_put_in_as_compose_does() -> None:
    done = convert(
        "compose",
        'services: {web: {image: "x:${TAG-1}",'
        ' command: ["$A", "${B:-b}", "${EMPTY:-e}", "${EMPTY-e}", "$$A", "${A:+yes}"]}}',
        variables={"A": "a", "EMPTY": ""},
    )
    assert done.spec("Container", "web")["args"] == ["a", "b", "e", "", "$A", "yes"]
    assert done.spec("Container", "web")["image"] == "x:1"
    assert done.entry("command[0]").outcome is Outcome.TRANSLATED


def test_a_variable_that_is_not_set_is_told() -> None:
    done = service('command: ["x$NOBODY"]')
    assert done.spec("Container", "web")["args"] == ["x"]
    assert "export NOBODY=" in done.entry("command[0]").why


def test_a_variable_that_has_to_be_set_is_an_error_with_its_place() -> None:
    with pytest.raises(Invalid, match=r"in.yaml:4:5: services.web.command needs the variable A: say who"):
        service('command: "${A:?say who}"')


def test_aliases_and_merge_keys_are_written_out() -> None:
    text = "x-all: &all {restart: always, tty: true}\nservices:\n  web: {<<: *all, image: 'x:1', tty: false}\n"
    spec = convert("compose", text).spec("Container", "web")
    assert (spec["restart"], spec["tty"]) == ({"policy": "Always"}, False)


def test_aliases_that_would_grow_without_end_are_refused() -> None:
    lines = "\n".join(f"x-{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9) if i else 'x'}]" for i in range(9))
    with pytest.raises(Invalid, match="too large"):
        convert("compose", f"{lines}\nservices: {{web: {{image: 'x:1'}}}}")


def test_a_healthcheck_is_a_readiness_probe() -> None:
    done = service("healthcheck: {test: [CMD-SHELL, 'curl -f x'], interval: 1m30s, retries: 2}")
    assert done.spec("Container", "web")["probes"] == {
        "readiness": {"exec": ["/bin/sh", "-c", "curl -f x"], "every": "90s", "timeout": "30s", "failures": 2}
    }


def test_what_a_service_waits_for_is_a_dependency() -> None:
    text = (
        "services:\n  web: {image: 'x:1', depends_on: {db: {condition: service_healthy}}}\n"
        "  job: {image: 'x:1', depends_on: [web]}\n  db: {image: 'x:1'}\n"
    )
    done = convert("compose", text)
    assert done.spec("Container", "web")["dependsOn"] == [{"container": "db", "condition": "Ready"}]
    assert done.spec("Container", "job")["dependsOn"] == [{"container": "web", "condition": "Started"}]


def test_configs_and_secrets_are_files_beside_the_manifest_and_secrets(tmp_path: Path) -> None:
    (tmp_path / "site.conf").write_text("x")
    (tmp_path / "token.txt").write_text("hush")
    text = (
        "services:\n  web: {image: 'x:1', configs: [{source: site, target: /etc/site.conf}], secrets: [token]}\n"
        "configs: {site: {file: ./site.conf}}\nsecrets: {token: {file: token.txt}}\n"
    )
    done = convert("compose", text, str(tmp_path))
    assert done.spec("Container", "web")["mounts"] == [
        {"path": "/etc/site.conf", "file": "site.conf"},
        {"path": "/run/secrets", "secret": "web-secrets"},
    ]
    assert done.spec("Secret", "web-secrets") == {"data": {"token": "aHVzaA=="}}
    assert all("hush" not in entry.why + entry.to for entry in done.result.entries)


def test_a_service_without_an_image_is_dropped_and_nobody_waits_for_it() -> None:
    text = "services:\n  web: {image: 'x:1', depends_on: [own]}\n  own: {build: .}\n"
    done = convert("compose", text)
    assert done.names("Container") == ["web"]
    assert "push or import" in done.entry("build").why
    assert done.entry("depends_on[0]").outcome is Outcome.DROPPED


@pytest.mark.parametrize("size", [("1g", "1Gi"), ("512m", "512Mi"), ("50kb", "50Ki"), ("1000", "1000")])
def test_sizes_are_powers_of_1024_as_with_docker(size: tuple[str, str]) -> None:
    assert service(f"mem_limit: {size[0]}").spec("Container", "web")["resources"] == {"memory": size[1]}


def test_processors_disks_and_hooks_have_their_places() -> None:
    spec = service("cpuset: 0-2\n    blkio_config: {weight: 300}\n    post_start: [{command: 'a b'}]").spec(
        "Container", "web"
    )
    assert spec["resources"] == {"cpuset": {"cpus": "0-2"}, "ioWeight": 300}
    assert spec["hooks"] == {"postStart": {"exec": ["a", "b"]}}


def test_labels_that_no_label_can_have_are_annotations() -> None:
    done = service("labels: ['a=b', 'rule=Host(`x`)']")
    metadata = done.metadata("Container", "web")
    assert (metadata["labels"], metadata["annotations"]) == ({"a": "b"}, {"rule": "Host(`x`)"})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("services: {}", "there is no service with an image in it"),
        ("services: x", "in.yaml:1:1: services is not a mapping"),
        ("services: {web: {image: 'x:1', ports: ['1:2:3:4']}}", "services.web.ports[0] is no mapping of ports"),
        ("services: {web: {image: 'x:1', restart: perhaps}}", "services.web.restart is no restart policy"),
        ("services: {web: {image: 'x:1', env_file: none.env}}", "services.web.env_file is not there"),
        ("services: {web: {image: 'x:1', command: \"'\"}}", "services.web.command is no command line"),
        ("a: 1\n---\nb: 2", "is a second document"),
        ("\t", "in.yaml:1:1: syntax"),
    ],
)
def test_a_file_that_cannot_be_is_an_error_with_its_place(text: str, says: str) -> None:
    with pytest.raises(Invalid) as refused:
        convert("compose", text)
    assert says in str(refused.value)
