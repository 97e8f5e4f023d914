"""Which services of a compose file share a sandbox, and what that is.

Rules of this file: services are together when a network of compose joins them, or one says so; what only one of them
says of the sandbox counts for all of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from migrations.config.work import Outcome
from migrations.manifests.compose_stage import Stage
from migrations.manifests.given import Account, Given
from migrations.manifests.making import is_hostname, is_port, is_sysctl, name_for, pairs, texts

_PORT: Final = re.compile(
    r"(?:(?P<ip>[0-9.]{7,15}|\[[0-9a-fA-F:]{2,45}\]):)?(?:(?P<host>[0-9]{1,5}(?:-[0-9]{1,5})?)?:)?"
    r"(?P<inside>[0-9]{1,5}(?:-[0-9]{1,5})?)(?:/(?P<protocol>tcp|udp))?"
)
_OWN: Final = ("host", "none")
_RUNTIMES: Final[Mapping[str, str]] = {
    "runsc": "gvisor",
    "io.containerd.runc.v2": "runc",
    "io.containerd.wasmtime.v1": "wasm",
}
_DNS_OPTION: Final = re.compile(r"[a-z0-9-]{1,32}(:[0-9]{1,5})?")
_NO_HOST_PORT: Final = "no port of the host is chosen here: write HOST:CONTAINER"
_SWARM: Final = "is for a swarm of nodes"
_ONE: Final = "one of them runs on a node: apply it on several nodes, or write it twice"


def groups(services: Mapping[str, Given]) -> list[list[str]]:
    """The keys of services that share a sandbox, in their order."""
    marks = {key: _networks(key, given, services) for key, given in services.items()}
    found: list[tuple[list[str], set[str]]] = []
    for key, mine in marks.items():
        touching = [group for group in found if group[1] & mine]
        keys = [one for group in touching for one in group[0]] + [key]
        nets = set().union(mine, *(group[1] for group in touching))
        found = [group for group in found if group not in touching] + [(keys, nets)]
    order = list(services)
    return sorted((sorted(keys, key=order.index) for keys, _ in found), key=lambda keys: order.index(keys[0]))


def _networks(key: str, given: Given, services: Mapping[str, Given]) -> set[str]:
    """The networks of one service; who shares another one's is in that one's."""
    mode = given.get("network_mode")
    if mode is not None and mode.string().startswith("service:"):
        other = mode.string().removeprefix("service:")
        if other not in services or other == key:
            raise mode.bad("names no service with an image", "Correct the name.")
        return {f"service {other}", f"service {key}"}
    if mode is not None and mode.string() in _OWN:
        return {f"service {key}"}
    networks = given.get("networks")
    named = texts(networks) if networks is not None and networks.items is not None else list(_keys(networks))
    return {f"service {key}", *(f"network {name}" for name in named or ["default"])}


def _keys(given: Given | None) -> Mapping[str, Given]:
    return given.mapping() if given is not None else {}


def sandbox(stage: Stage, members: Mapping[str, Given]) -> None:
    """Add the sandbox of these services. Raises `BadDocument`."""
    account, name = stage.account, stage.names.sandboxes[next(iter(members))]
    where = f"sandbox/{name}"
    made: dict[str, Any] = {"runtime": "runc"}
    mode, ports = "bridge", []
    for given in members.values():
        mode = _mode(account, given, where, mode)
        _runtime(account, given, where, made)
    for given in members.values():
        ports += _ports(account, given, where, mapped=mode == "bridge")
        _names(account, given, where, made)
        _sysctls(account, given, where, made, mode)
        _deploy(account, given)
    unique = {repr((port["host"], port.get("protocol"), port.get("hostIP"))): port for port in ports}
    network: dict[str, Any] = {"mode": mode} if mode != "bridge" else {}
    made["network"] = {**network, **({"ports": list(unique.values())} if unique else {})}
    stage.made.add("Sandbox", name, made)


def _mode(account: Account, given: Given, where: str, mode: str) -> str:
    wanted, networks = given.get("network_mode"), given.get("networks")
    _joined(account, networks, where)
    if wanted is None:
        return mode
    word = wanted.string()
    if word in _OWN:
        account.moved(wanted, f"{where} network.mode")
        return word
    if word == "bridge":
        account.default(wanted)
    elif word.startswith("service:"):
        account.translated(wanted, where, "the same sandbox")
    else:
        account.dropped(wanted, "only bridge, host, none and service:NAME are there")
    return mode


def _joined(account: Account, networks: Given | None, where: str) -> None:
    """The networks of a service: that they are shared is what moves."""
    if networks is None:
        return
    for one in networks.items if networks.items is not None else networks.mapping().values():
        if one.fields:
            account.dropped(one, "addresses and names in a network are not given here")
        account.translated(one, f"{where} network", "services that share it share a sandbox")


def _runtime(account: Account, given: Given, where: str, made: dict[str, Any]) -> None:
    if (runtime := given.get("runtime")) is not None:
        made["runtime"] = _RUNTIMES.get(runtime.string(), name_for(runtime.string()))
        how = "a runtime of the agent, or of its configuration (runtimes), for all in the sandbox"
        account.translated(runtime, f"{where} runtime", how)


def _names(account: Account, given: Given, where: str, made: dict[str, Any]) -> None:
    """Host name and resolver."""
    if (hostname := given.get("hostname")) is not None:
        if "hostname" in made or not is_hostname(hostname.string()):
            account.dropped(hostname, "is no host name, or the sandbox has one already")
        else:
            made["hostname"] = hostname.string()
            account.moved(hostname, f"{where} hostname")
    dns: dict[str, list[str]] = made.setdefault("dns", {})
    for theirs, ours in (("dns", "servers"), ("dns_search", "searches"), ("dns_opt", "options")):
        if (one := given.get(theirs)) is None:
            continue
        found = texts(one)
        if ours == "options" and not all(_DNS_OPTION.fullmatch(text) for text in found):
            account.dropped(one, "is no option of a resolver here")
            continue
        dns[ours] = list(dict.fromkeys([*dns.get(ours, []), *found]))
        account.moved(one, f"{where} dns.{ours}")
    if not dns:
        del made["dns"]


def _sysctls(account: Account, given: Given, where: str, made: dict[str, Any], mode: str) -> None:
    found: dict[str, str] = made.get("sysctls", {})
    for name, value, place in pairs(given.get("sysctls")):
        if not is_sysctl(name):
            account.dropped(place, "is the node's, not a sandbox's: set it on the node (sysctl.d)")
        elif mode == "host" and name.startswith("net."):
            account.dropped(place, "would change the node's own network")
        else:
            found[name] = value
            account.moved(place, f"{where} sysctls")
    if found:
        made["sysctls"] = found


def _deploy(account: Account, given: Given) -> None:
    """What is left of `deploy`, and `scale`."""
    for count in (given.get("scale"), given.get("deploy", "replicas")):
        if count is not None and count.number() == 1:
            account.default(count)
        account.dropped(count, _ONE)
    deploy = given.get("deploy")
    account.inert(deploy.get("resources", "reservations") if deploy is not None else None, "nothing is scheduled here")
    policy = deploy.get("restart_policy") if deploy is not None else None
    account.dropped(policy, "tries are not counted; restart.maxDelay caps the back-off")
    account.dropped(deploy.get("resources") if deploy is not None else None, "there is no such limit here")
    account.say(deploy, Outcome.INERT, _SWARM)


# ------------------------------------------------------------------------------------------------------------ ports


def _ports(account: Account, given: Given, where: str, *, mapped: bool) -> list[dict[str, Any]]:
    listed = given.get("ports")
    found: list[dict[str, Any]] = []
    for one in listed.listing() if listed is not None else ():
        if not mapped:
            account.inert(one, "the network is not a bridge: nothing is mapped")
            continue
        ports = _long(one) if one.fields is not None else _short(one)
        if ports and one.fields is not None:
            account.moved_keys(one, ("target", "published", "protocol", "host_ip"), f"{where} network.ports")
            account.inert(one.get("mode"), "is for a swarm of nodes")
            account.inert(one.get("name"), "is for people")
            account.inert(one.get("app_protocol"), "is for people")
        elif ports:
            account.moved(one, f"{where} network.ports")
        else:
            account.dropped(one, _NO_HOST_PORT)
        found += ports
    return found


def _short(one: Given) -> list[dict[str, Any]]:
    """`127.0.0.1:8080:80/udp`, ranges too; none without a port of the host."""
    if not (parts := _PORT.fullmatch(one.string())):
        raise one.bad("is no mapping of ports", "Write HOST:CONTAINER, such as 8080:80.")
    if not parts["host"]:
        return []
    return _range(one, parts["host"], parts["inside"], parts["protocol"] or "tcp", (parts["ip"] or "").strip("[]"))


def _long(one: Given) -> list[dict[str, Any]]:
    target, published = one.get("target"), one.get("published")
    protocol, address = one.get("protocol"), one.get("host_ip")
    if target is None:
        raise one.bad("names no port", "Write target: NUMBER.")
    if published is None or not published.string():
        return []
    word = protocol.string() if protocol is not None else "tcp"
    if word not in ("tcp", "udp"):
        return []
    return _range(one, published.string(), target.string(), word, address.string() if address is not None else "")


def _range(one: Given, host: str, inside: str, protocol: str, address: str) -> list[dict[str, Any]]:
    outer, inner = _numbers(one, host), _numbers(one, inside)
    if len(outer) != len(inner):
        if len(inner) != 1:
            raise one.bad("maps as many ports as it does not have", "Write ranges of the same length.")
        outer = outer[:1]
    more: dict[str, Any] = {"protocol": protocol} if protocol != "tcp" else {}
    if address and address != "0.0.0.0":
        more["hostIP"] = address
    return [{"host": a, "container": b, **more} for a, b in zip(outer, inner, strict=True)]


def _numbers(one: Given, text: str) -> list[int]:
    first, _, last = text.partition("-")
    try:
        low, high = int(first), int(last or first)
    except ValueError:
        low = high = 0
    if not (is_port(low) and is_port(high) and low <= high < low + 1000):
        raise one.bad("is no port, or no range of ports", "Write numbers from 1 to 65535.")
    return list(range(low, high + 1))
