"""What a Pod's volumes are here, and what of them a container mounts.

Rules of this file: a volume that nothing here can be is dropped with its mounts; a Pod's own empty folder goes with its
Volume object, a claimed one stays.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, Final

from core.values import dataclass
from migrations.config.work import Outcome
from migrations.manifests.amounts import quantity, size
from migrations.manifests.given import Account, Given, Rule, follow
from migrations.manifests.making import LATER_WHY, Made, Settings, absolute, is_data_key, mountable, name_for

_NO_KIND: Final = "there is no such volume here: mount a Volume or a folder of the node (bind)"
_CLUSTER: Final = "made by the cluster: there is no API server to ask here"
_WHOLE: Final = "a Secret is mounted whole, a file a key: have one with these keys only"
_OPTIONAL: Final = "what is mounted has to be there: remove the mount, or apply an empty Secret"
_SUB: Final = "a part of a volume cannot be mounted: mount all of it, or a folder of the node (bind)"
_SUB_SECRET: Final = "one key cannot be mounted: write it as a file beside the manifest, and mount that (file)"


@dataclass(slots=True)
class Source:
    """What a mount of the volume says; None: it cannot be mounted, and `why` says so."""

    says: dict[str, Any] | None
    why: str = ""
    read_only: bool = False


@dataclass(slots=True)
class Volumes:
    """The volumes of one Pod, by name. `known`: names of Secrets made of the Secrets and ConfigMaps in the file."""

    account: Account
    made: Made
    settings: Settings
    known: Mapping[tuple[str, str], str]
    pod: str
    uses: Mapping[str, int]
    found: dict[str, Source] = field(default_factory=dict)

    def read(self, given: Given | None) -> None:
        """All of `spec.volumes`."""
        for one in given.listing() if given is not None else ():
            if (name := one.get("name")) is None:
                raise one.bad("has no name", "Write name: NAME.")
            self.found[name.string()] = self._source(name.string(), one)
            self.account.moved(name, "", "what mounts it says what it is")

    def _source(self, name: str, one: Given) -> Source:
        ways: dict[str, Callable[[str, Given], Source]] = {
            "emptyDir": self._empty,
            "hostPath": self._host,
            "configMap": self._config,
            "secret": self._secret,
            "persistentVolumeClaim": self._claim,
        }
        for key, way in ways.items():
            if (given := one.mapping().get(key)) is not None:
                return way(name, given)
        if name.startswith("kube-api-access"):
            self.account.inert(one, _CLUSTER)
            return Source(None, _CLUSTER)
        self.account.dropped(one, _NO_KIND)
        return Source(None, _NO_KIND)

    def _empty(self, name: str, given: Given) -> Source:
        memory = given.get("medium") is not None and (given.get("medium") or given).string() == "Memory"
        limit = given.get("sizeLimit")
        amount = size(quantity(limit.string())) if limit is not None else ""
        if memory and self.uses.get(name, 0) < 2:
            self.account.translated(given.get("medium"), "mounts[].tmpfs", "a folder in memory, of the one container")
            if amount:
                self.account.moved(limit, "mounts[].tmpfs.size")
            return Source({"tmpfs": {"size": amount} if amount else {}})
        volume = self.made.name("Volume", f"{self.pod}-{name}")
        self.made.add("Volume", volume, {"mode": "0777", "retain": False})
        self.account.dropped(limit, f"the size of a Volume {LATER_WHY}: limit it by a disk of its own")
        if memory:
            why = "several containers share it, so it lies on disk: remove it, or let one container mount it"
            self.account.dropped(given.get("medium"), why)
        if given.empty:
            self.account.translated(given, f"volume/{volume}", "goes with the Volume object, as with the Pod")
        return Source({"volume": volume})

    def _host(self, name: str, given: Given) -> Source:
        path, kind = given.get("path"), given.get("type")
        where = path.string() if path is not None else ""
        if not absolute(where):
            self.account.dropped(given, "is no absolute path")
            return Source(None, "its volume names no absolute path")
        word = kind.string() if kind is not None else ""
        self.account.moved(path, "mounts[].bind.source")
        if word == "DirectoryOrCreate":
            self.account.moved(kind, "mounts[].bind.create")
        elif word in ("FileOrCreate",):
            self.account.dropped(kind, "a file is not made here: it has to be there")
        elif word in ("", "Directory", "File"):
            self.account.default(kind)
        else:
            self.account.inert(kind, "what lies there is mounted, whatever it is")
        return Source({"bind": {"source": where, **({"create": True} if word == "DirectoryOrCreate" else {})}})

    def _config(self, name: str, given: Given) -> Source:
        return self._whole(given, "ConfigMap", "name")

    def _secret(self, name: str, given: Given) -> Source:
        return self._whole(given, "Secret", "secretName")

    def _whole(self, given: Given, kind: str, key: str) -> Source:
        named = given.get(key)
        if named is None:
            raise given.bad("names nothing", f"Write {key}: NAME.")
        secret = secret_for(self.known, kind, named.string())
        how = "a ConfigMap is a Secret here" if kind == "ConfigMap" else "the same"
        self.account.translated(named, f"mounts[].secret: {secret}", how)
        if (items := given.get("items")) is not None and items.listing():
            secret = self._chosen(secret, items)
        rules: dict[str, Rule] = {
            "defaultMode": self._mode,
            "optional": lambda one: unless(self.account, one, _OPTIONAL),
        }
        follow(self.account, given, rules)
        return Source({"secret": secret})

    def _chosen(self, secret: str, items: Given) -> str:
        """A Secret with some of the keys, under the names wanted; the whole one where it is not in the file."""
        whole = self.made.secret(secret)
        parts: dict[str, dict[str, str]] = {}
        for item in items.listing() if whole is not None else ():
            key, path = item.get("key"), item.get("path")
            if key is None or path is None:
                raise item.bad("has no key or path", "Write both.")
            part = next((part for part, held in (whole or {}).items() if key.string() in held), None)
            if whole is None or part is None or not is_data_key(path.string()):
                self.account.dropped(item, "no file of a Secret can be called so, or there is no such key")
                continue
            parts.setdefault(part, {})[path.string()] = whole[part][key.string()]
            for known in (key, path):
                self.account.translated(known, "", "a Secret of its own, with these keys only")
        self.account.dropped(items, _WHOLE)
        if not parts:
            return secret
        return self.made.secret_of(f"{secret}-{self.pod}", parts)

    def _mode(self, given: Given) -> None:
        """0644 and 420 are the same."""
        if given.text in ("0644", "420", "0400", "256"):
            self.account.inert(given, "the files are for the container's user alone")
        else:
            self.account.dropped(given, "the files are for the container's user alone, mode 0400")

    def _claim(self, name: str, given: Given) -> Source:
        claim = given.get("claimName")
        if claim is None:
            raise given.bad("names no claim", "Write claimName: NAME.")
        wanted = claim.string()
        volume = self.known.get(("PersistentVolumeClaim", wanted))
        if volume is None:
            volume = name_for(wanted)
            if ("Volume", volume) not in self.made.names:
                self.made.names.add(("Volume", volume))
                self.made.add("Volume", volume, {"retain": True})
        self.account.translated(claim, f"volume/{volume}", "a folder of this node; its content is yours to bring")
        only = given.get("readOnly")
        self.account.moved(only, "mounts[].readOnly")
        return Source({"volume": volume}, read_only=only is not None and only.truth())

    # ------------------------------------------------------------------------------------------------------- mounts

    def mounts(self, given: Given | None, where: str) -> list[dict[str, Any]]:
        """The mounts of one container, from its `volumeMounts`; each path once."""
        mounts: dict[str, dict[str, Any]] = {}
        for one in given.listing() if given is not None else ():
            mount = self._mount(one, where)
            if mount is None:
                continue
            if mount["path"] in mounts:
                raise one.bad("mounts where another one is mounted", "Keep one of the two.")
            mounts[mount["path"]] = mount
        return list(mounts.values())

    def _mount(self, one: Given, where: str) -> dict[str, Any] | None:
        name, path = one.get("name"), one.get("mountPath")
        if name is None or path is None:
            raise one.bad("has no name or mountPath", "Write both.")
        source = self.found.get(name.string())
        if source is None:
            raise name.bad("names no volume of this Pod", "Correct the name.")
        if source.says is None:
            made_by_cluster = source.why == _CLUSTER
            self.account.say(one, Outcome.INERT if made_by_cluster else Outcome.DROPPED, source.why)
            return None
        if not mountable(path.string()):
            self.account.dropped(one, "can be mounted on an absolute path below / only")
            return None
        says = self._part(one, source.says)
        if says is None:
            return None
        only = one.get("readOnly")
        rules: dict[str, Rule] = {
            "mountPropagation": lambda given: same(self.account, given, ("None",), "nothing is mounted on later"),
            "recursiveReadOnly": (Outcome.DROPPED, "what is mounted below is as it is"),
            "subPathExpr": (Outcome.DROPPED, _SUB),
        }
        follow(self.account, one, rules)
        self.account.moved_keys(one, ("name", "mountPath", "readOnly", "subPath"), f"{where} mounts")
        wanted = only is not None and only.truth()
        read_only = "secret" not in says and (wanted or source.read_only)
        clean = "/" + posixpath.normpath(path.string()).lstrip("/")
        return {"path": clean, **says, **({"readOnly": True} if read_only else {})}

    def _part(self, one: Given, says: dict[str, Any]) -> dict[str, Any] | None:
        """What the mount says where only a part of the volume is wanted; None where that cannot be."""
        part = one.get("subPath")
        if one.get("subPathExpr") is not None:
            self.account.dropped(one, _SUB)
            return None
        if part is None or not part.string():
            return says
        inside = posixpath.normpath(part.string())
        if "bind" in says and not inside.startswith(("/", "..")):
            self.account.translated(part, "mounts[].bind.source", "a part of the folder")
            return {"bind": {**says["bind"], "source": posixpath.join(says["bind"]["source"], inside)}}
        self.account.dropped(one, _SUB_SECRET if "secret" in says else _SUB)
        return None


def secret_for(known: Mapping[tuple[str, str], str], kind: str, name: str) -> str:
    """The Secret that stands for a Secret or ConfigMap."""
    return known.get((kind, name)) or name_for(name)


def unless(account: Account, given: Given, why: str) -> None:
    """A switch that is off by default, and that nothing here can be."""
    if given.truth():
        account.dropped(given, why)
    else:
        account.default(given)


def same(account: Account, given: Given, usual: tuple[str, ...], why: str) -> None:
    """A word that says what holds here, or is dropped."""
    if given.string() in usual:
        account.default(given)
    else:
        account.dropped(given, why)
