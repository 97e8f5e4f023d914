"""Pods as manifests: what of them goes where, and what has no place."""

from __future__ import annotations

import pytest

from core.errors import Invalid
from migrations.config.work import Outcome
from tests.converting import Converted, convert

HEAD = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\n"


def pod(spec: str, container: str = "", beside: str = "") -> Converted:
    """A Pod of one container, called web."""
    lines = f"{HEAD}spec:\n  containers:\n    - {{name: app, image: 'nginx:1'{container and ', ' + container}}}\n{spec}"
    return convert("pod", f"{lines}\n{beside}")


def test_a_pod_is_a_sandbox_and_its_only_container_is_called_as_it_is() -> None:
    done = pod("")
    assert (done.names("Sandbox"), done.names("Container")) == (["web"], ["web"])
    assert done.spec("Container", "web")["sandbox"] == "web"
    assert done.spec("Container", "web")["restart"] == {"policy": "Always"}


def test_a_pod_that_says_nothing_has_30_s_to_stop_and_a_folder_that_everyone_may_write_into() -> None:
    done = pod("  volumes: [{name: v, emptyDir: {}}]", "volumeMounts: [{name: v, mountPath: /x}]")
    assert done.spec("Container", "web")["stop"] == {"grace": "30s"}
    assert done.spec("Volume", "web-v") == {"mode": "0777", "retain": False}


def test_some_keys_of_a_config_map_are_a_secret_of_their_own() -> None:
    beside = "---\nkind: ConfigMap\nmetadata: {name: site}\ndata: {a.conf: '${node.name}', b.conf: y}\n"
    items = "items: [{key: a.conf, path: main.conf}, {key: b.conf, path: deep/b}]"
    done = pod(
        f"  volumes: [{{name: v, configMap: {{name: site, {items}}}}}]",
        "volumeMounts: [{name: v, mountPath: /x}]",
        beside,
    )
    (mount,) = done.spec("Container", "web")["mounts"]
    assert mount == {"path": "/x", "secret": "site-web"}
    assert done.spec("Secret", "site-web") == {"stringData": {"main.conf": "$${node.name}"}}
    assert done.entry("items[1].path").outcome is Outcome.DROPPED


def test_containers_of_one_pod_have_names_of_their_own() -> None:
    text = f"{HEAD}spec: {{containers: [{{name: a, image: 'x:1'}}, {{name: b_c, image: 'x:1'}}]}}"
    assert convert("pod", text).names("Container") == ["web-a", "web-b-c"]


def test_an_init_container_is_waited_for_until_it_succeeded() -> None:
    done = pod("  initContainers: [{name: first, image: 'x:1'}, {name: second, image: 'x:1'}]")
    assert done.spec("Container", "web-first")["restart"] == {"policy": "OnFailure"}
    assert done.spec("Container", "web-second")["dependsOn"] == [{"container": "web-first", "condition": "Succeeded"}]
    assert done.spec("Container", "web")["dependsOn"] == [{"container": "web-second", "condition": "Succeeded"}]


def test_an_init_container_that_goes_on_is_waited_for_until_it_started() -> None:
    done = pod("  initContainers: [{name: side, image: 'x:1', restartPolicy: Always}]")
    assert done.spec("Container", "web-side")["restart"] == {"policy": "Always"}
    assert done.spec("Container", "web")["dependsOn"] == [{"container": "web-side", "condition": "Started"}]


@pytest.mark.parametrize(
    ("volume", "mount"),
    [
        ("emptyDir: {}", {"path": "/x", "volume": "web-v"}),
        ("emptyDir: {medium: Memory, sizeLimit: 1Mi}", {"path": "/x", "tmpfs": {"size": "1Mi"}}),
        ("hostPath: {path: /srv}", {"path": "/x", "bind": {"source": "/srv"}}),
        ("hostPath: {path: /srv, type: DirectoryOrCreate}", {"path": "/x", "bind": {"source": "/srv", "create": True}}),
        ("configMap: {name: site}", {"path": "/x", "secret": "site"}),
        ("secret: {secretName: Keys}", {"path": "/x", "secret": "keys"}),
        (
            "persistentVolumeClaim: {claimName: data, readOnly: true}",
            {"path": "/x", "volume": "data", "readOnly": True},
        ),
    ],
)
def test_a_volume_is_what_its_mounts_say(volume: str, mount: dict[str, object]) -> None:
    done = pod(f"  volumes: [{{name: v, {volume}}}]", "volumeMounts: [{name: v, mountPath: /x/}]")
    assert done.spec("Container", "web")["mounts"] == [mount]


def test_a_folder_in_memory_that_two_containers_share_is_told_to_lie_on_disk() -> None:
    mounts = "volumeMounts: [{name: v, mountPath: /x}]"
    text = f"{HEAD}spec:\n  volumes: [{{name: v, emptyDir: {{medium: Memory}}}}]\n  containers:\n"
    done = convert("pod", text + "".join(f"    - {{name: {n}, image: 'x:1', {mounts}}}\n" for n in "ab"))
    assert done.entry("emptyDir.medium").outcome is Outcome.DROPPED
    assert done.names("Volume") == ["web-v"]


def test_what_is_no_volume_here_is_dropped_with_its_mounts() -> None:
    done = pod("  volumes: [{name: v, nfs: {server: nas}}]", "volumeMounts: [{name: v, mountPath: /x}]")
    assert "mounts" not in done.spec("Container", "web")
    assert done.entry("nfs.server").outcome is done.entry("mountPath").outcome is Outcome.DROPPED


def test_a_config_map_and_a_secret_of_one_name_are_two_secrets() -> None:
    beside = "".join(
        f"---\nkind: {kind}\nmetadata: {{name: app}}\n{part}: {{A: x}}\n"
        for kind, part in (("ConfigMap", "data"), ("Secret", "stringData"))
    )
    env = "envFrom: [{configMapRef: {name: app}}, {secretRef: {name: app}, prefix: S_}]"
    done = pod("", env, beside)
    assert done.names("Secret") == ["app-2", "app"]
    assert [(one["name"], one["valueFrom"]["secret"]["name"]) for one in done.spec("Container", "web")["env"]] == [
        ("A", "app-2"),
        ("S_A", "app"),
    ]


def test_variables_are_put_into_commands_where_their_value_is_known() -> None:
    env = "env: [{name: A, value: x}, {name: S, valueFrom: {secretKeyRef: {name: k, key: k}}}]"
    done = pod("", f'{env}, args: ["$(A)", "$$(A)", "$(NONE)", "$(S)"]')
    assert done.spec("Container", "web")["args"] == ["x", "$(A)", "$(NONE)", "$(S)"]
    assert [done.entry(f"args[{i}]").outcome.value for i in range(4)] == [
        "translated",
        "translated",
        "moved",
        "dropped",
    ]


def test_text_that_would_be_filled_in_here_stays_as_it_is() -> None:
    done = pod("", "args: ['${node.name} ${values.x} $${y} ${z}']")
    assert done.spec("Container", "web")["args"] == ["$${node.name} $${values.x} ${y} ${z}"]


def test_waiting_before_a_liveness_probe_is_a_startup_probe() -> None:
    done = pod("", "livenessProbe: {tcpSocket: {port: 80}, initialDelaySeconds: 25, periodSeconds: 10}")
    probes = done.spec("Container", "web")["probes"]
    assert probes["startup"] == {"tcp": {"port": 80}, "every": "10s", "failures": 6}
    assert probes["liveness"] == {"tcp": {"port": 80}, "every": "10s"}
    assert done.entry("initialDelaySeconds").to == "probes.startup"


@pytest.mark.parametrize(
    ("probe", "ours"),
    [
        ("httpGet: {port: web, path: /up}", {"http": {"port": 8080, "path": "/up"}}),
        ("httpGet: {port: 443, scheme: HTTPS}", {"tcp": {"port": 443}}),
        ("exec: {command: [ls]}", {"exec": ["ls"]}),
    ],
)
def test_a_probe_asks_the_same_question(probe: str, ours: dict[str, object]) -> None:
    done = pod("", f"ports: [{{name: web, containerPort: 8080}}], readinessProbe: {{{probe}}}")
    assert done.spec("Container", "web")["probes"] == {"readiness": ours}


def test_a_port_of_the_host_is_the_sandboxes() -> None:
    done = pod("", "ports: [{containerPort: 53, hostPort: 5353, protocol: UDP, hostIP: 127.0.0.1}, {containerPort: 1}]")
    assert done.spec("Sandbox", "web")["network"]["ports"] == [
        {"host": 5353, "container": 53, "protocol": "udp", "hostIP": "127.0.0.1"}
    ]


def test_the_network_of_the_host_maps_nothing() -> None:
    done = pod("  hostNetwork: true", "ports: [{containerPort: 80, hostPort: 80}]")
    assert done.spec("Sandbox", "web")["network"] == {"mode": "host"}
    assert done.entry("hostPort").outcome is Outcome.INERT


def test_how_an_image_is_pulled_is_said_by_an_image() -> None:
    done = pod("  imagePullSecrets: [{name: login}]", "imagePullPolicy: Always")
    assert done.spec("Image", "nginx") == {
        "ref": "nginx:1",
        "pullPolicy": "Always",
        "credentials": {"secret": "login"},
    }
    assert done.spec("Container", "web")["image"] == "nginx"


def test_who_a_container_is_and_what_it_may_is_its_own_or_the_pods() -> None:
    security = "securityContext: {runAsGroup: 5, allowPrivilegeEscalation: true, capabilities: {drop: [ALL]}}"
    done = pod("  securityContext: {runAsUser: 7, seccompProfile: {type: Unconfined}}", security)
    spec = done.spec("Container", "web")
    assert spec["user"] == "7:5"
    assert spec["security"] == {"seccomp": "unconfined", "noNewPrivileges": False, "capabilities": {"drop": ["ALL"]}}


@pytest.mark.parametrize(
    ("limits", "ours"),
    [("cpu: 1", "1000m"), ("cpu: 0.0001", "1m"), ("memory: 1e3", "1000"), ("memory: 1.5Gi", "1536Mi")],
)
def test_limits_are_never_less_than_they_were(limits: str, ours: str) -> None:
    done = pod("", f"resources: {{limits: {{{limits}}}}}")
    assert list(done.spec("Container", "web")["resources"].values()) == [ours]


def test_hooks_that_are_commands_are_hooks() -> None:
    hooks = "lifecycle: {postStart: {exec: {command: [a, b]}}, preStop: {httpGet: {port: 80}}, stopSignal: SIGUSR1}"
    done = pod("", hooks)
    assert done.spec("Container", "web")["hooks"] == {"postStart": {"exec": ["a", "b"]}}
    assert done.spec("Container", "web")["stop"]["signal"] == "USR1"
    assert done.entry("preStop.httpGet.port").outcome is Outcome.DROPPED


def test_large_pages_are_limited_by_their_size() -> None:
    done = pod("", "resources: {limits: {hugepages-2Mi: 64Mi, example.org/gpu: 1}}")
    assert done.spec("Container", "web")["resources"] == {"hugepages": {"2Mi": "64Mi"}}


def test_ids_of_its_own_and_the_nodes_network_are_not_together() -> None:
    assert pod("  hostUsers: false").spec("Sandbox", "web")["userNamespace"] == {"mode": "auto"}
    assert pod("  hostUsers: false\n  hostNetwork: true").entry("hostUsers").outcome is Outcome.DROPPED


def test_what_a_cluster_wrote_is_no_loss() -> None:
    text = (
        "metadata: {name: web, uid: x, resourceVersion: '1',\n"
        "  annotations: {kubectl.kubernetes.io/last-applied-configuration: x}}\n"
        "status: {phase: Running}\nspec:\n  tolerations: [{key: x}]\n  nodeName: n\n  serviceAccountName: default\n"
        "  volumes: [{name: kube-api-access-x, projected: {sources: []}}]\n"
        "  containers: [{name: a, image: 'x:1', volumeMounts: [{name: kube-api-access-x, mountPath: /var/run/s}]}]\n"
    )
    assert not convert("pod", f"kind: Pod\n{text}").result.dropped


def test_what_cannot_be_called_a_name_becomes_one() -> None:
    assert convert("pod", HEAD.replace("web", "A__b..c-") + "spec: {containers: [{name: x, image: y}]}").names(
        "Container"
    ) == ["a-b.c"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("kind: ConfigMap\nmetadata: {name: x}", "there is no Pod in it"),
        ("metadata: {name: x}", "in.yaml:1:1: has no kind"),
        (HEAD, "in.yaml:1:1: has no spec"),
        (f"{HEAD}spec: {{containers: x}}", "in.yaml:4:8: spec.containers is not a list"),
        (f"{HEAD}spec: {{containers: []}}", "spec has no containers"),
        (f"{HEAD}spec: {{containers: [{{name: x}}]}}", "in.yaml:4:21: spec.containers[0] has no image"),
        (
            f"{HEAD}spec: {{restartPolicy: Maybe, containers: [{{name: x, image: y}}]}}",
            "restartPolicy is no restart policy",
        ),
        (f"{HEAD}spec: [", "in.yaml:5:1: syntax"),
        (
            f"{HEAD}spec: {{containers: [{{name: x, image: y, volumeMounts: [{{name: v, mountPath: /v}}]}}]}}",
            "volumeMounts[0].name names no volume of this Pod",
        ),
    ],
)
def test_a_file_that_cannot_be_is_an_error_with_its_place(text: str, says: str) -> None:
    with pytest.raises(Invalid) as refused:
        convert("pod", text)
    assert says in str(refused.value)
