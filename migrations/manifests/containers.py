"""containerd's containers, as `ctr containers info` prints them, as manifests.

Rules of this file: the labels of the restart monitor say the restart policy; without them nothing restarted it. What
the runtime was told that every container here is told too is no news; what only this one was told is moved or dropped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from core.errors import Invalid
from core.values import dataclass
from migrations.config.work import Outcome
from migrations.manifests.container_spec import Process
from migrations.manifests.given import Account, Given, Rule, follow
from migrations.manifests.making import Made, Result, Settings, is_hostname, is_port, is_signal, name_for, words

RESTART: Final = "containerd.io/restart."
_STOP_SIGNAL: Final = "io.containerd.image.config.stop-signal"
_POLICIES: Final = {
    "": "Always",
    "always": "Always",
    "unless-stopped": "Always",
    "no": "Never",
    "on-failure": "OnFailure",
}
_STOPPED: Final = "was stopped: after it was applied, say reconciler stop {0}"
_LOGS: Final = "the agent keeps its log: reconciler logs, and spec.log for its size"
_OWN: Final = ("nerdctl/", "io.containerd.", "containerd.io/", "io.cri-containerd", "io.kubernetes.")
_RUNTIMES: Final[Mapping[str, str]] = {
    "io.containerd.runc.v1": "runc",
    "io.containerd.runc.v2": "runc",
    "io.containerd.runtime.v1.linux": "runc",
    "io.containerd.runsc.v1": "gvisor",
    "io.containerd.kata.v2": "vm",
    "io.containerd.wasmtime.v1": "wasm",
    "io.containerd.wasmedge.v1": "wasm",
}
_TOP: Final[Mapping[str, Rule]] = {
    "SnapshotKey": (Outcome.INERT, "each attempt begins with a fresh layer: copy out what has to stay"),
    "CreatedAt": (Outcome.INERT, "says what containerd saw"),
    "UpdatedAt": (Outcome.INERT, "says what containerd saw"),
    "Extensions": (Outcome.INERT, "is for containerd's clients"),
    "Process": (Outcome.INERT, "says what containerd saw"),
    "SandboxID": (Outcome.INERT, "it has a sandbox of its own here"),
}


def convert(documents: Sequence[Given], settings: Settings) -> Result:
    """Manifests of containers, each an object or in a list. Raises `BadDocument`, and `Invalid` where there is none."""
    account, made = Account(documents), Made()
    found = [one for root in documents for one in (root.items if root.items is not None else [root])]
    if not found:
        raise Invalid("there is no container in it", advice="Give what ctr containers info NAME prints.")
    for one in found:
        _Container(account, made, settings, one).convert()
    return Result(made.documents, account.entries(), account.told)


@dataclass(slots=True)
class _Container:
    account: Account
    made: Made
    settings: Settings
    given: Given

    def convert(self) -> None:
        """Its Sandbox and its Container."""
        given, labels = self.given, self.given.get("Labels")
        image, identity = given.get("Image"), given.get("ID")
        if identity is None or image is None or not image.string():
            raise given.bad("has no ID or Image", "Give what ctr containers info NAME prints.")
        called = labels.get("nerdctl/name") if labels is not None else None
        name = self.made.name("Container", (called or identity).string())
        where = f"container/{name}"
        self.account.moved(called, f"{where} metadata.name")
        self.account.moved(identity, f"{where} metadata.name", "" if called is None else "nerdctl/name is its name")
        spec = self._spec(image, where)
        sandbox = self.made.name("Sandbox", name)
        spec["sandbox"] = sandbox
        spec["restart"] = {"policy": self._restart(labels, name, where)}
        process = Process(self.account, self.settings, given.get("Spec"), where)
        spec |= process.read()
        if stop := self._stop(labels, where):
            spec["stop"] = {"signal": stop}
        self._sandbox(sandbox, labels, process)
        self._marks(labels)
        plain, annotations = words(self.account, labels, where)
        ours = {key: value for key, value in plain.items() if not key.startswith(_OWN)}
        others = {key: value for key, value in annotations.items() if not key.startswith(_OWN)}
        follow(self.account, given, _TOP)
        self.made.add("Container", name, spec, labels=ours, annotations=others)

    def _spec(self, image: Given, where: str) -> dict[str, Any]:
        snapshotter = self.given.get("Snapshotter")
        word = snapshotter.string() if snapshotter is not None else ""
        more: dict[str, Any] = {}
        if word == "native":
            more["snapshotter"] = word
            self.account.translated(snapshotter, f"{where} image", "an Image says it")
        elif word in ("", "overlayfs"):
            self.account.default(snapshotter)
        self.account.dropped(snapshotter, "there is no such snapshotter here: overlayfs is used")
        said = self.made.image(image.string(), more)
        self.account.moved(image, f"{where} image")
        return {"image": said}

    # ------------------------------------------------------------------------------------------------------- labels

    def _restart(self, labels: Given | None, name: str, where: str) -> str:
        """The policy that the restart monitor was told; Never where it was told nothing."""
        known = {key: labels.get(f"{RESTART}{key}") if labels is not None else None for key in _KEYS}
        policy, status, stopped = known["policy"], known["status"], known["explicitly-stopped"]
        word, _, count = policy.string().partition(":") if policy is not None else ("", "", "")
        if word not in _POLICIES:
            assert policy is not None
            raise policy.bad("is no restart policy", "It is no, always, on-failure or unless-stopped.")
        to = f"{where} restart.policy"
        if count:
            self.account.say(policy, Outcome.DROPPED, "tries are not counted: restart.maxDelay caps the back-off", to)
        if word == "unless-stopped":
            self.account.translated(policy, to, "reconciler stop stops it until start")
        self.account.translated(policy, to, "a policy of the container, with a back-off")
        if status is not None and status.string() == "stopped":
            self.account.dropped(status, _STOPPED.format(name))
        self.account.translated(status, to, "the restart monitor looked after it; the agent does now")
        if stopped is not None and stopped.string() == "true":
            self.account.dropped(stopped, _STOPPED.format(name))
        self.account.default(stopped)
        self.account.inert(known["count"], "restarts are counted anew: status.restarts")
        for key in ("loguri", "logpath"):
            self.account.translated(known[key], f"{where} log", _LOGS)
        return _POLICIES[word] if status is not None else "Never"

    def _stop(self, labels: Given | None, where: str) -> str:
        given = labels.get(_STOP_SIGNAL) if labels is not None else None
        if given is None or not is_signal(given.string()):
            return ""
        self.account.moved(given, f"{where} stop.signal")
        return given.string().removeprefix("SIG")

    def _marks(self, labels: Given | None) -> None:
        """Labels of containerd's clients, which say nothing to us."""
        for key, one in (labels.mapping() if labels is not None else {}).items():
            if key.startswith(_OWN):
                self.account.inert(one, "is a mark of containerd's client")

    # ------------------------------------------------------------------------------------------------------ sandbox

    def _sandbox(self, name: str, labels: Given | None, process: Process) -> None:
        where = f"sandbox/{name}"
        runtime = self.given.get("Runtime", "Name")
        kind = runtime.string() if runtime is not None else "io.containerd.runc.v2"
        ours = _RUNTIMES.get(kind, name_for(kind.rsplit("/", 1)[-1]))
        self.account.translated(runtime, f"{where} runtime: {ours}", "a runtime of the agent, or of its configuration")
        options = self.given.get("Runtime", "Options")
        if options is not None and options.get("value") is None:
            self.account.default(options, "says nothing")
        self.account.dropped(options, "say it in the configuration: runtimes.NAME.options")
        made: dict[str, Any] = {"runtime": ours, "network": self._network(labels, process, where)}
        hostname = labels.get("nerdctl/hostname") if labels is not None else None
        hostname = hostname or self.given.get("Spec", "hostname")
        if hostname is not None and is_hostname(hostname.string()):
            made["hostname"] = hostname.string()
            self.account.moved(hostname, f"{where} hostname")
        made["sysctls"] = process.sysctls(where)
        self.made.add("Sandbox", name, made)

    def _network(self, labels: Given | None, process: Process, where: str) -> dict[str, Any]:
        """By nerdctl's labels; else by the namespaces that it was given, where nobody says more."""
        networks = labels.get("nerdctl/networks") if labels is not None else None
        if networks is None:
            return {"mode": "none"} if process.own_network() else {"mode": "host"}
        named = _listed(networks)
        self.account.translated(networks, f"{where} network", "one network; addresses do not move")
        if "host" in named or "none" in named:
            return {"mode": "host" if "host" in named else "none"}
        ports = [
            port for one in _listed(labels.get("nerdctl/ports") if labels is not None else None) if (port := _port(one))
        ]
        if labels is not None:
            self.account.moved(labels.get("nerdctl/ports"), f"{where} network.ports")
        return {"ports": list({repr(port): port for port in ports}.values())} if ports else {}


_KEYS: Final = ("policy", "status", "count", "explicitly-stopped", "loguri", "logpath")


def _listed(given: Given | None) -> list[Any]:
    """A list in JSON in a label; raises `BadDocument`."""
    if given is None:
        return []
    try:
        found = json.loads(given.string())
    except ValueError:
        found = None
    if not isinstance(found, list):
        raise given.bad("is no list in JSON", "Give what ctr containers info prints.")
    return found


def _port(one: Any) -> dict[str, Any]:
    """A mapping of nerdctl's; {} for what is none."""
    if not isinstance(one, Mapping):
        return {}
    host, inside, protocol = one.get("HostPort"), one.get("ContainerPort"), str(one.get("Protocol", "tcp"))
    if not (isinstance(host, int) and isinstance(inside, int) and is_port(host) and is_port(inside)):
        return {}
    port: dict[str, Any] = {"host": host, "container": inside}
    if protocol == "udp":
        port["protocol"] = protocol
    if one.get("HostIP") not in (None, "", "0.0.0.0"):
        port["hostIP"] = str(one["HostIP"])
    return port
