"""Whatever a Pod or a compose file says: no crash, every key told once, and what comes out can be loaded."""

from __future__ import annotations

import copy
import json
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.errors import Invalid
from migrations.config.work import Outcome
from migrations.manifests.given import Given
from reconciler.cli.converting import documents_of
from reconciler.sources.files import ManifestFile
from tests.converting import convert

quick = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
TEXTS = st.sampled_from(
    ("x", "", "/a/b", "../up", "a b", "ünï", "Big_Name", "true", "1", "${node.name}", "$${x}", "10s", "5", "true", "-1")
)
NAMES = st.sampled_from(("web", "db", "My_App", "a.b", "x" * 70))
SCALARS = st.one_of(TEXTS, st.integers(-5, 70000), st.booleans(), st.none())
ANY = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(NAMES, inner, max_size=2)),
    max_leaves=4,
)
PATHS = st.sampled_from(("/data", "/a/../b", "/", "relative", "/etc/x", "/data/"))
AMOUNTS = st.sampled_from(("500m", "1", "1.5", "128Mi", "1e3", "0", "-1", "64m", "1g", "12kb", "lots"))


def some(keys: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """A mapping with some of the keys, now and then one that nobody knows, seldom one with anything."""
    usual = st.fixed_dictionaries({}, optional=keys)
    strange = st.tuples(usual, st.just("unheard"), ANY).map(_with)
    wrong = st.tuples(usual, st.sampled_from(list(keys)), ANY).map(_with)
    return st.integers(0, 60).flatmap(lambda n: wrong if n == 60 else strange if n > 50 else usual)


def _with(parts: tuple[dict[str, Any], str, Any]) -> dict[str, Any]:
    return {**parts[0], parts[1]: parts[2]}


def few(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(inner, max_size=3)


def whole(needed: dict[str, st.SearchStrategy[Any]], more: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(st.fixed_dictionaries(needed), more).map(lambda parts: {**parts[1], **parts[0]})


IMAGES = st.sampled_from(("nginx", "nginx:1", "r.example:5000/a/b@sha256:" + "0" * 64, "quay.io/x/y:latest"))
PROBE = some(
    {
        "httpGet": whole({"port": st.sampled_from((80, "http", "8080"))}, some({"path": PATHS, "scheme": TEXTS})),
        "exec": some({"command": few(TEXTS)}),
        "tcpSocket": some({"port": st.integers(0, 70000)}),
        **dict.fromkeys(("periodSeconds", "initialDelaySeconds", "failureThreshold"), st.integers(0, 100)),
    }
)
ENV = whole(
    {"name": NAMES},
    some(
        {
            "value": TEXTS,
            "valueFrom": some(
                {
                    "secretKeyRef": whole({"name": NAMES, "key": NAMES}, some({"optional": st.booleans()})),
                    "fieldRef": some(
                        {"fieldPath": st.sampled_from(("spec.nodeName", "metadata.name", "status.podIP"))}
                    ),
                }
            ),
        }
    ),
)
SECURITY = some(
    {
        **dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), st.integers(0, 70000)),
        **dict.fromkeys(("privileged", "readOnlyRootFilesystem", "allowPrivilegeEscalation"), st.booleans()),
        "capabilities": some({"add": few(st.sampled_from(("ALL", "NET_ADMIN", "chown"))), "drop": st.just(["ALL"])}),
        "sysctls": few(some({"name": st.sampled_from(("net.x", "vm.y")), "value": TEXTS})),
        "seccompProfile": some({"type": st.sampled_from(("Unconfined", "RuntimeDefault", "Localhost"))}),
    }
)
CONTAINER = whole(
    {"name": NAMES, "image": IMAGES},
    some(
        {
            "command": few(TEXTS),
            "args": few(st.sampled_from(("$(web)", "$$(db)", "x"))),
            "env": few(ENV),
            "ports": few(
                some({"containerPort": st.integers(1, 99), "hostPort": st.integers(1, 99), "name": st.just("http")})
            ),
            "resources": some({"limits": st.dictionaries(st.sampled_from(("cpu", "memory", "gpu")), AMOUNTS)}),
            "livenessProbe": PROBE,
            "startupProbe": PROBE,
            "readinessProbe": PROBE,
            "securityContext": SECURITY,
            "imagePullPolicy": st.sampled_from(("Always", "Never", "IfNotPresent")),
            "workingDir": PATHS,
            "tty": st.booleans(),
            "volumeMounts": few(
                whole({"name": NAMES, "mountPath": PATHS}, some({"subPath": TEXTS, "readOnly": st.booleans()}))
            ),
        }
    ),
)
VOLUME = whole(
    {"name": NAMES},
    some(
        {
            "emptyDir": some({"medium": st.just("Memory"), "sizeLimit": AMOUNTS}),
            "hostPath": some({"path": PATHS, "type": TEXTS}),
            "configMap": some({"name": NAMES, "defaultMode": st.just(420)}),
            "persistentVolumeClaim": some({"claimName": NAMES}),
            "nfs": ANY,
        }
    ),
)
POD = whole(
    {"containers": st.lists(CONTAINER, min_size=1, max_size=3)},
    some(
        {
            "initContainers": few(CONTAINER),
            "volumes": few(VOLUME),
            "restartPolicy": st.sampled_from(("Always", "Never", "OnFailure")),
            "hostNetwork": st.booleans(),
            "securityContext": SECURITY,
            "dnsConfig": some(
                {"nameservers": st.just(["9.9.9.9"]), "options": few(some({"name": TEXTS, "value": TEXTS}))}
            ),
            "terminationGracePeriodSeconds": st.integers(0, 99),
            "imagePullSecrets": few(some({"name": NAMES})),
            "shareProcessNamespace": st.booleans(),
            "hostname": TEXTS,
        }
    ),
)
SERVICE = whole(
    {"image": IMAGES},
    some(
        {
            "command": st.one_of(TEXTS, few(TEXTS)),
            "environment": st.one_of(
                few(st.sampled_from(("A=1", "B", "C="))), st.dictionaries(NAMES, SCALARS, max_size=2)
            ),
            "ports": few(st.sampled_from(("80:80", "80", "1-2:3-4", "127.0.0.1:53:53/udp", "80-81:80", "x", 90))),
            "volumes": few(st.sampled_from(("a:/data", "./b:/data:ro", "/c", "x", "~/d:/e", "a:/f:z,ro"))),
            "restart": st.sampled_from(("no", "always", "on-failure:3", "unless-stopped", False)),
            "network_mode": st.sampled_from(("host", "none", "bridge", "service:db", "container:x")),
            "networks": few(NAMES),
            "depends_on": st.one_of(
                few(NAMES), st.dictionaries(NAMES, some({"condition": st.just("service_healthy")}))
            ),
            "healthcheck": some(
                {"test": st.sampled_from(("x", ["CMD", "y"], ["NONE"])), "interval": TEXTS, "disable": st.booleans()}
            ),
            "mem_limit": AMOUNTS,
            "cpus": AMOUNTS,
            "pids_limit": st.integers(-1, 9),
            "labels": st.dictionaries(NAMES, TEXTS, max_size=2),
            "deploy": some({"replicas": st.integers(0, 2), "resources": some({"limits": some({"memory": AMOUNTS})})}),
            "cap_add": few(st.just("NET_ADMIN")),
            "devices": few(st.sampled_from(("/dev/fuse", "/dev/a:/dev/b", "x"))),
            "tmpfs": st.sampled_from(("/tmp", ["/run:size=1m"], "x")),
            "sysctls": st.one_of(few(st.just("net.x=1")), st.dictionaries(st.just("vm.y"), TEXTS)),
            "user": TEXTS,
            "hostname": TEXTS,
        }
    ),
)


def leaves(value: Any) -> int:
    """How many values hold no other."""
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return sum(leaves(one) for one in below) or 1


def check(way: str, documents: list[Any], *, loads: bool = True) -> None:
    """Refused with a place, or converted into what can be loaded, every key told."""
    text = "\n---\n".join(json.dumps(one, ensure_ascii=False) for one in documents)
    try:
        done = convert(way, text, loads=loads)
    except Invalid:
        return
    assert len(done.result.entries) == sum(leaves(one) for one in documents)
    assert all(entry.line for entry in done.result.entries)
    strange = [entry for entry in done.result.entries if "unheard" in entry.key]
    assert [entry for entry in strange if entry.outcome in (Outcome.MOVED, Outcome.TRANSLATED)] == []


@quick
@given(NAMES, POD, st.dictionaries(NAMES, TEXTS, max_size=2))
def test_a_pod_is_converted_or_refused_and_every_key_is_told(name: str, spec: Any, labels: Any) -> None:
    check("pod", [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}])


@quick
@given(
    st.dictionaries(NAMES, SERVICE, min_size=1, max_size=3), some({"volumes": st.dictionaries(NAMES, ANY), "x-y": ANY})
)
def test_a_compose_file_is_converted_or_refused_and_every_key_is_told(services: Any, more: Any) -> None:
    check("compose", [{"services": services, **more}])


GOLDEN = Path(__file__).parents[1] / "golden" / "manifests"
KEPT = {"pod": "pod/web.yaml", "compose": "compose/shop.yaml", "containerd-labels": "containers/two.json"}


def kept(way: str) -> list[Any]:
    """The documents of a golden file."""
    given = documents_of(ManifestFile(KEPT[way], (GOLDEN / KEPT[way]).read_bytes()), way)
    return [plain(one) for one in given]


def plain(given: Given) -> Any:
    """The values of a document."""
    if given.fields is not None:
        return {key: plain(one) for key, one in given.fields.items()}
    return [plain(one) for one in given.items] if given.items is not None else given.value


DOCUMENTS = {way: kept(way) for way in KEPT}


@quick
@given(st.sampled_from(sorted(KEPT)), st.randoms(use_true_random=False), ANY)
def test_a_file_that_somebody_spoilt_is_converted_or_refused(way: str, dice: Random, value: Any) -> None:
    documents = copy.deepcopy(DOCUMENTS[way])
    here: Any = documents
    while True:
        key = dice.choice(list(here) if isinstance(here, dict) else range(len(here)))
        if not (isinstance(here[key], dict | list) and here[key] and dice.randrange(8)):
            break
        here = here[key]
    here[key] = value
    text = "\n---\n".join(json.dumps(one, ensure_ascii=False) for one in documents)
    with suppress(Invalid):
        convert(way, text, str((GOLDEN / KEPT[way]).parent), {"PASSWORD": "hush"}, loads=False)


@quick
@given(ANY, st.sampled_from(("pod", "compose", "containerd-labels")))
def test_what_is_none_of_them_is_refused(value: Any, way: str) -> None:
    whole = {"kind": "Pod", "services": value, "spec": value, "metadata": value, "ID": value, "Image": value}
    check(way, [whole], loads=False)  # images may be anything
