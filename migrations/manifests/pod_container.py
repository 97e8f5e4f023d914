"""One container of a Pod as a Container.

Rules of this file: what a Pod says for all its containers, a container says for itself here. `$(NAME)` is put in where
the value stands beside it, as nothing is put in later.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field
from typing import Any, Final

from core.values import dataclass
from migrations.config.work import Outcome
from migrations.manifests.amounts import cpu, quantity, size
from migrations.manifests.given import Account, Given, Rule, follow
from migrations.manifests.making import LATER_WHY, Settings, absolute, is_data_key, is_env_name, name_for
from migrations.manifests.pod_volumes import same, secret_for, unless

_REFERENCE: Final = re.compile(r"\$\$|\$\(([-._a-zA-Z0-9]+)\)")
_PAGES: Final = re.compile(r"hugepages-([1-9][0-9]{0,3}[KMG]i)")
_NOT_PUT_IN: Final = "$({0}) comes from elsewhere and is not put in: start a shell, and write ${0}"
_OPTIONAL: Final = "what is named has to be there: remove it, or apply such a Secret"
_NO_HOOK: Final = "only commands are hooks (hooks.postStart, hooks.preStop): write exec"
_GPU: Final = "there is no such resource here: name device nodes in security.devices"


@dataclass(slots=True)
class Held:
    """What the file holds beside Pods. `names`: Secrets by kind and name; `keys`: what each holds, with its text
    (None: bytes).
    """

    names: Mapping[tuple[str, str], str]
    keys: Mapping[tuple[str, str], tuple[str, ...]]


@dataclass(slots=True)
class Environment:
    """The variables of one container. `known`: the values that stand there."""

    account: Account
    held: Held
    pod: Mapping[str, str]
    where: str
    made: dict[str, dict[str, Any]] = field(default_factory=dict)
    known: dict[str, str] = field(default_factory=dict)

    def read(self, container: Given) -> list[dict[str, Any]]:
        """`envFrom` first, then `env`, whose names win."""
        given = container.get("envFrom")
        for one in given.listing() if given is not None else ():
            self._all_of(one)
        given = container.get("env")
        for one in given.listing() if given is not None else ():
            self._one(one)
        return list(self.made.values())

    def _all_of(self, one: Given) -> None:
        prefix = one.get("prefix")
        for key, kind in (("secretRef", "Secret"), ("configMapRef", "ConfigMap")):
            if (ref := one.get(key)) is None:
                continue
            name = ref.get("name")
            wanted = (kind, name.string() if name is not None else "")
            if wanted not in self.held.keys:
                self.account.dropped(one, "is not in this file: name each key under env, with valueFrom.secret")
                return
            for inner in self.held.keys[wanted]:
                variable = f"{prefix.string() if prefix is not None else ''}{inner}"
                if is_env_name(variable):
                    value = {"secret": {"name": self.held.names[wanted], "key": inner}}
                    self.made[variable] = {"name": variable, "valueFrom": value}
            if (optional := ref.get("optional")) is not None:
                unless(self.account, optional, _OPTIONAL)
            for known in (prefix, name):
                self.account.translated(known, f"{self.where} env", "each of its keys is a variable")

    def _one(self, one: Given) -> None:
        name = one.get("name")
        if name is None or not is_env_name(name.string()):
            raise (name or one).bad("is not the name of a variable", "Write name: NAME.")
        variable, source = name.string(), one.get("valueFrom")
        if source is not None:
            self._from(variable, one, source)
        else:
            value = one.get("value")
            text = self.put_in(value, value.string()) if value is not None else ""
            self.made[variable] = {"name": variable, "value": text}
            self.known[variable] = text
        if variable in self.made:
            self.account.moved_keys(one, ("name", "value"), f"{self.where} env")

    def _from(self, variable: str, one: Given, source: Given) -> None:
        self.known.pop(variable, None)
        for key, kind in (("secretKeyRef", "Secret"), ("configMapKeyRef", "ConfigMap")):
            if (ref := source.get(key)) is not None:
                self._key(variable, one, ref, kind)
                return
        fact = source.get("fieldRef", "fieldPath")
        value = self.pod.get(fact.string()) if fact is not None else None
        if fact is not None and fact.string() == "spec.nodeName":
            self.made[variable] = {"name": variable, "valueFrom": {"node": "name"}}
            self.account.translated(fact, f"{self.where} env", "the name of the node, as the agent knows it")
        elif value is not None:
            self.made[variable] = {"name": variable, "value": value}
            self.known[variable] = value
            self.account.translated(fact, f"{self.where} env", "what it says in this file")
        else:
            self.account.dropped(one, "is known only while it runs: no variable can hold it here")

    def _key(self, variable: str, one: Given, ref: Given, kind: str) -> None:
        name, key = ref.get("name"), ref.get("key")
        if name is None or key is None or not is_data_key(key.string()):
            raise ref.bad("names no key", "Write name: NAME and key: KEY.")
        secret = secret_for(self.held.names, kind, name.string())
        self.made[variable] = {
            "name": variable,
            "valueFrom": {"secret": {"name": secret, "key": key.string()}},
        }
        if (optional := ref.get("optional")) is not None:
            unless(self.account, optional, _OPTIONAL)
        how = f"secret/{secret}" + ("; a ConfigMap is a Secret here" if kind == "ConfigMap" else "")
        for known in (name, key):
            self.account.translated(known, f"{self.where} env", how)

    def put_in(self, given: Given, text: str) -> str:
        """`text` with `$(NAME)` as far as the value is known; told where one comes from elsewhere."""
        if "$" not in text:
            return text
        missing: list[str] = []

        def value(found: re.Match[str]) -> str:
            name = found[1]
            if name is None:
                return "$"
            if name in self.made and name not in self.known:
                missing.append(name)
            return self.known.get(name, found[0])

        result = _REFERENCE.sub(value, text)
        if missing:
            self.account.dropped(given, _NOT_PUT_IN.format(missing[0]))
        elif result != text:
            self.account.translated(given, "", "$(NAME) is put in")
        return result


# -------------------------------------------------------------------------------------------------------- resources


def resources(account: Account, given: Given | None, where: str) -> dict[str, Any]:
    """The limits of a container, or of all of a Pod's."""
    found: dict[str, Any] = {}
    if given is None:
        return found
    account.inert(given.get("requests"), "nothing is scheduled here: only limits count")
    limits = given.get("limits")
    for name, one in (limits.mapping() if limits is not None else {}).items():
        page = _PAGES.fullmatch(name)
        if name not in ("cpu", "memory") and page is None:
            account.dropped(one, _GPU)
            continue
        amount = quantity(one.string())
        text = cpu(amount) if name == "cpu" else size(amount)
        if not text:
            raise one.bad("is no amount", "Write one such as 500m or 128Mi.")
        if page is None:
            found[name] = text
            account.moved(one, f"{where} resources.{name}")
        else:
            found.setdefault("hugepages", {})[page[1]] = text
            account.moved(one, f"{where} resources.hugepages")
    return found


# --------------------------------------------------------------------------------------------------------- security


def user(account: Account, whole: Given | None, own: Given | None, where: str) -> str:
    """User and group of a container, its own or the Pod's; "" for the image's."""
    parts = []
    for key in ("runAsUser", "runAsGroup"):
        mine = own.get(key) if own is not None else None
        pods = whole.get(key) if whole is not None else None
        account.moved(mine, f"{where} user")
        parts.append(mine or pods)
    first, second = parts
    if first is None:
        account.dropped(second, "a group without a user: write user: UID:GID")
        return ""
    account.moved(first, f"{where} user")
    account.moved(second, f"{where} user")
    return f"{first.number()}:{second.number()}" if second is not None else str(first.number())


@dataclass(slots=True)
class Security:
    """`securityContext` of a container, on top of the Pod's."""

    account: Account
    settings: Settings
    where: str
    made: dict[str, Any] = field(default_factory=dict)

    def read(self, whole: Given | None, own: Given | None) -> dict[str, Any]:
        """What `security` says."""
        for given in (whole, own):
            if given is not None and (profile := given.get("seccompProfile")) is not None:
                self._seccomp(profile)
        if own is not None:
            follow(self.account, own, self._rules())
        return self.made

    def _rules(self) -> Mapping[str, Rule]:
        return {
            "readOnlyRootFilesystem": lambda given: self._set(given, "readOnlyRootfs", given.truth()),
            "allowPrivilegeEscalation": lambda given: self._set(given, "noNewPrivileges", not given.truth()),
            "privileged": self._privileged,
            "capabilities": self._capabilities,
            "procMount": lambda given: same(self.account, given, ("Default",), "/proc is masked, as is usual"),
            "runAsNonRoot": (Outcome.INERT, "is not looked at when it starts: say user"),
            "seLinuxOptions": (Outcome.DROPPED, "SELinux labels are not set"),
            "appArmorProfile": (Outcome.DROPPED, "AppArmor profiles are not set"),
            "windowsOptions": (Outcome.DROPPED, "this is Linux"),
        }

    def _set(self, given: Given, key: str, value: Any) -> None:
        self.made[key] = value
        self.account.moved(given, f"{self.where} security.{key}")

    def _privileged(self, given: Given) -> None:
        if not given.truth():
            self.account.default(given)
        elif "Container.security.privileged" in self.settings.later:
            self.account.dropped(given, f"{LATER_WHY}: name capabilities and devices")
        else:
            self._set(given, "privileged", True)

    def _capabilities(self, given: Given) -> None:
        names: dict[str, list[str]] = {}
        for key in ("add", "drop"):
            one = given.get(key)
            if one is not None and one.listing():
                names[key] = list(dict.fromkeys(item.string().upper() for item in one.listing()))
                self.account.moved(one, f"{self.where} security.capabilities.{key}")
        if names:
            self.made["capabilities"] = names

    def _seccomp(self, given: Given) -> None:
        kind = given.get("type")
        word = kind.string() if kind is not None else ""
        if word == "Unconfined":
            self._set(kind or given, "seccomp", "unconfined")
        elif word == "RuntimeDefault":
            self.made.pop("seccomp", None)
            self.account.default(kind)
        else:
            self.account.dropped(given, "profiles of one's own are not loaded: the default one is used")


# --------------------------------------------------------------------------------------------------------- the rest


def ports_by_name(given: Given | None) -> dict[str, int]:
    """The ports of a container that have a name."""
    found = {}
    for one in given.listing() if given is not None else ():
        name, port = one.get("name"), one.get("containerPort")
        if name is not None and port is not None:
            found[name.string()] = port.number()
    return found


def simple(account: Account, where: str, made: dict[str, Any]) -> Mapping[str, Rule]:
    """Rules for the keys of a container that stand alone; they fill `made`."""

    def directory(given: Given) -> None:
        if absolute(given.string()):
            made["workingDir"] = given.string()
            account.moved(given, f"{where} workingDir")
        else:
            account.dropped(given, "is no absolute path: the image's is used")

    def switch(key: str) -> Rule:
        def rule(given: Given) -> None:
            if given.truth():
                made[key] = True
            account.moved(given, f"{where} {key}")

        return rule

    def hooks(given: Given) -> None:
        if (stop := given.get("stopSignal")) is not None:
            made.setdefault("stop", {})["signal"] = stop.string().removeprefix("SIG")
            account.moved(stop, f"{where} stop.signal")
        for key in ("postStart", "preStop"):
            command = given.get(key, "exec", "command")
            if command is not None and command.listing():
                made.setdefault("hooks", {})[key] = {"exec": [one.string() for one in command.listing()]}
                account.moved(command, f"{where} hooks.{key}")
        account.dropped(given, _NO_HOOK)

    return {
        "workingDir": directory,
        "stdin": switch("stdin"),
        "tty": switch("tty"),
        "stdinOnce": lambda given: unless(account, given, "stdin stays open for all who attach"),
        "lifecycle": hooks,
        "terminationMessagePath": (Outcome.INERT, "what a container says at its end is in its log"),
        "terminationMessagePolicy": (Outcome.INERT, "what a container says at its end is in its log"),
        "resizePolicy": (Outcome.INERT, "resources always change in place"),
        "volumeDevices": (Outcome.DROPPED, "block devices are not made: name device nodes in security.devices"),
    }


def own_name(pod: str, container: str, alone: bool) -> str:
    """What the Container is called: as the Pod where it is its only one."""
    return pod if alone else name_for(f"{pod}-{container}")
