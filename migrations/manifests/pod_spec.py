"""The spec of one Pod: its Sandbox and, in the order in which they start, its Containers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from typing import Any, Final

from core.values import dataclass
from migrations.config.work import Outcome
from migrations.manifests.amounts import seconds
from migrations.manifests.given import Account, Given, Rule, follow
from migrations.manifests.making import LATER_WHY, Made, Settings, is_hostname, is_port, is_sysctl, name_for
from migrations.manifests.pod_container import (
    Environment,
    Held,
    Security,
    own_name,
    ports_by_name,
    resources,
    simple,
    user,
)
from migrations.manifests.pod_probes import probes
from migrations.manifests.pod_volumes import Volumes, unless

_SCHEDULED: Final = "nothing is scheduled here: it runs on the node that it is applied on"
_REACHED: Final = "what listens is reached at the sandbox's address; only a port of the host is mapped"
_NO_API: Final = "there is no API server to ask here"
_NO_HOSTS: Final = "/etc/hosts is made by the agent: mount a file of your own there (file: PATH)"
_NO_SHARING: Final = "a sandbox has namespaces of its own: this cannot be shared with the node"
_RUNTIMES: Final[Mapping[str, str]] = {"runsc": "gvisor", "kata": "vm", "kata-qemu": "vm", "wasmtime": "wasm"}
_DNS_OPTION: Final = re.compile(r"[a-z0-9-]{1,32}(:[0-9]{1,5})?")
_GRACE: Final = 30
"""Seconds that a Pod has to stop where it says nothing."""
_RESTART: Final = ("Always", "OnFailure", "Never")


@dataclass(slots=True)
class PodOf:
    """One Pod on its way."""

    account: Account
    made: Made
    settings: Settings
    held: Held
    name: str
    metadata: Mapping[str, Mapping[str, str]]

    @property
    def facts(self) -> dict[str, str]:
        """What `fieldRef` may ask for and the file says."""
        labels = {f"metadata.labels['{key}']": value for key, value in self.metadata.get("labels", {}).items()}
        return {"metadata.name": self.name, "metadata.namespace": "default", **labels}


@dataclass(slots=True)
class _Shared:
    """What the containers of a Pod have in common. `first`: what the next one waits for."""

    spec: Given
    volumes: Volumes
    policy: str
    ports: list[dict[str, Any]] = field(default_factory=list)
    host_network: bool = False
    first: list[dict[str, str]] = field(default_factory=list)


def convert_pod(pod: PodOf, spec: Given) -> None:
    """Add the Pod's objects. Raises `BadDocument`."""
    containers, first = spec.get("containers"), spec.get("initContainers")
    inits = first.listing() if first is not None else []
    mains = containers.listing() if containers is not None else []
    if not mains:
        raise spec.bad("has no containers", "Write containers: [{name: …, image: …}].")
    uses: dict[str, int] = {}
    for one in (*inits, *mains):
        mounted = one.get("volumeMounts")
        for mount in mounted.listing() if mounted is not None else ():
            if (name := mount.get("name")) is not None:
                uses[name.string()] = uses.get(name.string(), 0) + 1
    volumes = Volumes(pod.account, pod.made, pod.settings, pod.held.names, pod.name, uses)
    volumes.read(spec.get("volumes"))
    shared = _Shared(spec, volumes, _policy(pod, spec))
    shared.host_network = (given := spec.get("hostNetwork")) is not None and given.truth()
    made = [_container(pod, shared, one, alone=False, init=True) for one in inits]
    made += [_container(pod, shared, one, alone=len(mains) == 1, init=False) for one in mains]
    _sandbox(pod, shared)
    for called, container in made:
        pod.made.add("Container", called, container, **pod.metadata)


def _policy(pod: PodOf, spec: Given) -> str:
    given = spec.get("restartPolicy")
    policy = given.string() if given is not None else "Always"
    if policy not in _RESTART:
        assert given is not None
        raise given.bad("is no restart policy", f"Write {', '.join(_RESTART)}.")
    pod.account.moved(given, "restart.policy of each container")
    return policy


# ---------------------------------------------------------------------------------------------------------- sandbox


def _sandbox(pod: PodOf, shared: _Shared) -> None:
    account, spec, where = pod.account, shared.spec, f"sandbox/{pod.name}"
    made: dict[str, Any] = {"runtime": _runtime(pod, spec)}
    network: dict[str, Any] = {"mode": "host"} if shared.host_network else {}
    account.moved(spec.get("hostNetwork"), f"{where} network.mode")
    if shared.ports and not shared.host_network:
        network["ports"] = shared.ports
    made["network"] = network
    made["resources"] = resources(account, spec.get("resources"), where)
    made["dns"] = _dns(account, spec, where)
    made["sysctls"] = _sysctls(pod, shared, where)
    if (hostname := spec.get("hostname")) is not None and is_hostname(hostname.string()):
        made["hostname"] = hostname.string()
        account.moved(hostname, f"{where} hostname")
    follow(account, spec, _rules(pod, made))
    pod.made.add("Sandbox", pod.name, made, **pod.metadata)


def _runtime(pod: PodOf, spec: Given) -> str:
    given = spec.get("runtimeClassName")
    if given is None:
        return "runc"
    name = _RUNTIMES.get(given.string(), name_for(given.string()))
    how = "a runtime of the agent, or of its configuration (runtimes)"
    pod.account.translated(given, f"sandbox/{pod.name} runtime: {name}", how)
    return name


def _dns(account: Account, spec: Given, where: str) -> dict[str, Any]:
    """The resolver of the sandbox."""
    found: dict[str, list[str]] = {}
    config, policy = spec.get("dnsConfig"), spec.get("dnsPolicy")
    for theirs, ours in (("nameservers", "servers"), ("searches", "searches")):
        if config is not None and (given := config.get(theirs)) is not None and given.listing():
            found[ours] = [one.string() for one in given.listing()]
            account.moved(given, f"{where} dns.{ours}")
    options = config.get("options") if config is not None else None
    for one in options.listing() if options is not None else ():
        name, value = one.get("name"), one.get("value")
        text = (name.string() if name is not None else "") + (f":{value.string()}" if value is not None else "")
        if _DNS_OPTION.fullmatch(text):
            found.setdefault("options", []).append(text)
            account.moved_keys(one, ("name", "value"), f"{where} dns.options")
        else:
            account.dropped(one, "is no option of a resolver here")
    if policy is not None and policy.string() in ("Default", "None"):
        account.default(policy, "the node's resolver, where dns says no other")
    else:
        account.inert(policy, "there is no cluster's DNS: the node's resolver is asked, or what dns says")
    return found


def _sysctls(pod: PodOf, shared: _Shared, where: str) -> dict[str, str]:
    found: dict[str, str] = {}
    given = shared.spec.get("securityContext", "sysctls")
    for one in given.listing() if given is not None else ():
        name, value = one.get("name"), one.get("value")
        text = name.string() if name is not None else ""
        if value is None or not is_sysctl(text):
            pod.account.dropped(one, "is the node's, not a sandbox's: set it on the node (sysctl.d)")
        elif shared.host_network and text.startswith("net."):
            pod.account.dropped(one, "would change the node's own network")
        else:
            found[text] = value.string()
            pod.account.moved_keys(one, ("name", "value"), f"{where} sysctls")
    return found


def _rules(pod: PodOf, made: dict[str, Any]) -> Mapping[str, Rule]:
    """The keys of a Pod that are about its sandbox, or about a cluster."""
    account, later = pod.account, pod.settings.later

    def share(given: Given) -> None:
        if given.truth() and "Sandbox.shareProcessNamespace" in later:
            account.dropped(given, f"{LATER_WHY}: each container sees its own processes")
            return
        if given.truth():
            made["shareProcessNamespace"] = True
        account.moved(given, f"sandbox/{pod.name} shareProcessNamespace")

    def users(given: Given) -> None:
        if given.truth():
            account.default(given)
        elif "Sandbox.userNamespace.mode" in later:
            account.dropped(given, f"user namespaces: {LATER_WHY}")
        elif made["network"].get("mode") == "host":
            account.dropped(given, "ids of its own cannot own the node's network: choose another one")
        else:
            made["userNamespace"] = {"mode": "auto"}
            account.translated(given, f"sandbox/{pod.name} userNamespace.mode", "a range of ids of its own")

    scheduled = dict.fromkeys(
        (
            *("affinity", "nodeName", "nodeSelector", "overhead", "preemptionPolicy", "priority", "priorityClassName"),
            *("schedulerName", "schedulingGates", "tolerations", "topologySpreadConstraints", "resourceClaims"),
        ),
        (Outcome.INERT, _SCHEDULED),
    )
    api = dict.fromkeys(
        (
            "serviceAccount",
            "serviceAccountName",
            "automountServiceAccountToken",
            "enableServiceLinks",
            "readinessGates",
        ),
        (Outcome.INERT, _NO_API),
    )
    return {
        "shareProcessNamespace": share,
        "hostUsers": users,
        "hostPID": lambda given: unless(account, given, _NO_SHARING),
        "hostIPC": lambda given: unless(account, given, _NO_SHARING),
        "hostname": (Outcome.DROPPED, "is no host name"),
        "hostAliases": (Outcome.DROPPED, _NO_HOSTS),
        "subdomain": (Outcome.DROPPED, "there is no cluster's DNS"),
        "setHostnameAsFQDN": lambda given: unless(account, given, "there is no cluster's DNS: write hostname whole"),
        "activeDeadlineSeconds": (Outcome.DROPPED, "there is no deadline: stop it by hand"),
        "ephemeralContainers": (Outcome.DROPPED, "use reconciler exec"),
        "os": (Outcome.INERT, "this is Linux"),
        "securityContext": lambda given: _security(account, given),
        "imagePullSecrets": lambda given: account.dropped(given, "an Image has one login: spec.credentials"),
        **scheduled,
        **api,
    }


def _security(account: Account, given: Given) -> None:
    rules: dict[str, Rule] = {
        "runAsUser": (Outcome.INERT, "each container says its own"),
        "runAsGroup": (Outcome.DROPPED, "a group without a user: write user: UID:GID"),
        "runAsNonRoot": (Outcome.INERT, "is not looked at when it starts: say user"),
        "fsGroup": (Outcome.DROPPED, "say owner in the Volume"),
        "fsGroupChangePolicy": (Outcome.INERT, "owners of a Volume are set once"),
        "supplementalGroups": (Outcome.DROPPED, "a container has one group: user: UID:GID"),
        "supplementalGroupsPolicy": (Outcome.INERT, "a container has one group"),
        "seLinuxOptions": (Outcome.DROPPED, "SELinux labels are not set"),
        "appArmorProfile": (Outcome.DROPPED, "AppArmor profiles are not set"),
        "windowsOptions": (Outcome.DROPPED, "this is Linux"),
    }
    follow(account, given, rules)


# ------------------------------------------------------------------------------------------------------- containers


def _container(pod: PodOf, shared: _Shared, one: Given, *, alone: bool, init: bool) -> tuple[str, dict[str, Any]]:
    """Name and spec of one container; the ports that it wants of the host go to the sandbox."""
    account, spec = pod.account, shared.spec
    given = one.get("name")
    if given is None:
        raise one.bad("has no name", "Write name: NAME.")
    name = pod.made.name("Container", own_name(pod.name, given.string(), alone))
    where = f"container/{name}"
    if init:
        account.translated(given, f"{where} metadata.name", "a Container of its own, for which the next ones wait")
    account.moved(given, f"{where} metadata.name")
    made: dict[str, Any] = {"image": _image(pod, shared, one, where), "sandbox": pod.name}
    environment = Environment(account, pod.held, pod.facts, where)
    env = environment.read(one)
    for theirs in ("command", "args"):
        if (text := one.get(theirs)) is not None and text.listing():
            made[theirs] = [environment.put_in(part, part.string()) for part in text.listing()]
            account.moved(text, f"{where} {theirs}")
    made["env"] = env
    made["mounts"] = shared.volumes.mounts(one.get("volumeMounts"), where)
    made["resources"] = resources(account, one.get("resources"), where)
    whole, own = spec.get("securityContext"), one.get("securityContext")
    made["user"] = user(account, whole, own, where)
    made["security"] = Security(account, pod.settings, where).read(whole, own)
    grace = spec.get("terminationGracePeriodSeconds")
    made["stop"] = {"grace": seconds(grace.number() if grace is not None else _GRACE) or seconds(_GRACE)}
    account.moved(grace, "stop.grace of each container")
    follow(account, one, simple(account, where, made))
    named = ports_by_name(one.get("ports"))
    made["probes"] = probes(account, one, named, where)
    _ports(pod, shared, one.get("ports"))
    _order(pod, shared, one, name, made, init=init)
    return name, made


def _image(pod: PodOf, shared: _Shared, one: Given, where: str) -> str:
    given = one.get("image")
    if given is None or not given.string():
        raise (given or one).bad("has no image", "Write image: REFERENCE.")
    policy, logins = one.get("imagePullPolicy"), shared.spec.get("imagePullSecrets")
    more: dict[str, Any] = {}
    if policy is not None and policy.string() in ("Always", "Never"):
        more["pullPolicy"] = policy.string()
        pod.account.translated(policy, f"{where} image", "an Image says it")
    pod.account.default(policy)
    first = logins.listing()[:1] if logins is not None else []
    if first and (login := first[0].get("name")) is not None:
        more["credentials"] = {"secret": pod.held.names.get(("Secret", login.string()), name_for(login.string()))}
        pod.account.translated(login, f"{where} image", "an Image says it: credentials")
    said = pod.made.image(given.string(), more)
    if more:
        pod.account.translated(given, f"image/{said} ref", "an Image of its own, as more is said of it")
    pod.account.moved(given, f"{where} image")
    return said


def _ports(pod: PodOf, shared: _Shared, given: Given | None) -> None:
    for one in given.listing() if given is not None else ():
        inside, outside = one.get("containerPort"), one.get("hostPort")
        if inside is None or not is_port(inside.number()):
            raise (inside or one).bad("is no port", "Write containerPort: NUMBER.")
        protocol = one.get("protocol")
        word = protocol.string().lower() if protocol is not None else "tcp"
        if outside is None or shared.host_network:
            for key in ("name", "containerPort", "hostPort", "protocol", "hostIP"):
                pod.account.inert(one.get(key), _REACHED)
            continue
        if word not in ("tcp", "udp") or not is_port(outside.number()):
            pod.account.dropped(one, "only ports of tcp and udp are mapped")
            continue
        port: dict[str, Any] = {"host": outside.number(), "container": inside.number()}
        if word != "tcp":
            port["protocol"] = word
        if (address := one.get("hostIP")) is not None and address.string() not in ("", "0.0.0.0"):
            port["hostIP"] = address.string()
        if port not in shared.ports:
            shared.ports.append(port)
        known = ("name", "containerPort", "hostPort", "protocol", "hostIP")
        pod.account.moved_keys(one, known, f"sandbox/{pod.name} network.ports")


def _order(pod: PodOf, shared: _Shared, one: Given, name: str, made: dict[str, Any], *, init: bool) -> None:
    """What it waits for, and whether it is run again."""
    own = one.get("restartPolicy")
    side = init and own is not None and own.string() == "Always"
    made["dependsOn"] = list(shared.first)
    policy = shared.policy
    if init and not side:
        policy = "Never" if policy == "Never" else "OnFailure"
    if side:
        policy = "Always"
        pod.account.translated(own, f"container/{name} restart.policy", "the next ones wait until it has started")
    else:
        pod.account.dropped(own, "the Pod's restart policy counts for all of its containers")
    made["restart"] = {"policy": policy}
    if init:
        condition = "Succeeded" if not side else "Ready" if "startup" in made["probes"] else "Started"
        shared.first = [{"container": name, "condition": condition}]
