"""What a compose service mounts.

Rules of this file: a path that begins with `.` or `/` is one of the node, relative to the compose file; any other is a
volume. A mount that cannot be here is dropped alone.
"""

from __future__ import annotations

import posixpath
from typing import Any, Final

from core.values import dataclass
from migrations.manifests.amounts import docker_size
from migrations.manifests.compose_stage import Part
from migrations.manifests.given import Given
from migrations.manifests.making import mountable, texts

_KNOWN_WORDS: Final = frozenset({"ro", "rw", "z", "Z", "cached", "delegated", "consistent", "nocopy"})


@dataclass(slots=True)
class Mounts(Part):
    """All mounts of one service."""

    def read(self) -> list[dict[str, Any]]:
        """Each path once, in the order of `volumes`, `tmpfs`, `configs` and `secrets`. Raises `BadDocument`."""
        found: dict[str, dict[str, Any]] = {}
        given = self.given.get("volumes")
        for one in given.listing() if given is not None else ():
            mount = self._long(one) if one.fields is not None else self._short(one)
            if mount is not None and mountable(mount["path"]):
                found[_clean(mount["path"])] = {**mount, "path": _clean(mount["path"])}
            elif mount is not None:
                self.account.dropped(one, "can be mounted on an absolute path below / only")
        temporary = self.given.get("tmpfs")
        for text in texts(temporary):
            path, _, options = text.partition(":")
            words = [word for word in options.split(",") if word]
            size = next((word[5:] for word in words if word.startswith("size=")), "")
            amount = docker_size(size)
            if mountable(path):
                found[_clean(path)] = {"path": _clean(path), "tmpfs": {"size": amount} if amount else {}}
            if not mountable(path) or (words != [f"size={size}"] and words):
                self.account.dropped(temporary, "of a tmpfs only an absolute path and its size can be said")
        self.account.moved(temporary, f"{self.where} mounts")
        for mount in self.stage.files.mounts(self.given, self.stage.names.containers[self.key]):
            found.setdefault(mount["path"], mount)
        return list(found.values())

    def _short(self, one: Given) -> dict[str, Any] | None:
        parts = one.string().split(":")
        source, target, options = ["", *parts, ""][:3] if len(parts) == 1 else [*parts, ""][:3]
        words = {word for word in options.split(",") if word}
        says = self._source(one, source, target, create=True)
        if says is None:
            return None
        if unknown := words - _KNOWN_WORDS:
            self.account.dropped(one, f"{sorted(unknown)[0]} cannot be said of a mount here")
        self.account.moved(one, f"{self.where} mounts")
        return {"path": target, **says, **({"readOnly": True} if "ro" in words else {})}

    def _source(self, one: Given, source: str, target: str, *, create: bool) -> dict[str, Any] | None:
        """What a mount says of where it comes from; None, and dropped, where that cannot be."""
        if source.startswith("~"):
            self.account.dropped(one, "a home folder is nobody's here: write the whole path")
            return None
        if source.startswith((".", "/")):
            where = posixpath.normpath(posixpath.join(self.stage.settings.folder, source))
            return {"bind": {"source": where, **({"create": True} if create else {})}}
        if source:
            return {"volume": self._volume(source)}
        name = self.stage.made.name("Volume", f"{self.stage.names.containers[self.key]}{target}")
        self.stage.made.add("Volume", name, {"retain": False})
        self.account.translated(one, f"volume/{name}", "a Volume of its own, which goes with its object")
        return {"volume": name}

    def _volume(self, key: str) -> str:
        volumes = self.stage.names.volumes
        if key not in volumes:
            volumes[key] = self.stage.made.name("Volume", key)
            self.stage.made.add("Volume", volumes[key], {"retain": True})
        return volumes[key]

    def _long(self, one: Given) -> dict[str, Any] | None:
        kind, source, target, only = (one.get(key) for key in ("type", "source", "target", "read_only"))
        if kind is None or target is None:
            raise one.bad("has no type or target", "Write both.")
        says: dict[str, Any] | None
        if kind.string() == "tmpfs":
            size = one.get("tmpfs", "size")
            amount = docker_size(size.string()) if size is not None else ""
            says = {"tmpfs": {"size": amount} if amount else {}}
        elif kind.string() in ("bind", "volume"):
            made = one.get("bind", "create_host_path")
            says = self._source(
                one, source.string() if source is not None else "", target.string(), create=made is None or made.truth()
            )
        else:
            self.account.dropped(one, "only volume, bind and tmpfs are mounted")
            return None
        self.account.moved(one.get("bind", "create_host_path"), f"{self.where} mounts")
        for key in ("bind", "volume"):
            self.account.dropped(one.get(key), "cannot be said of a mount here")
        for key in ("type", "source", "target", "read_only", "tmpfs"):
            self.account.moved(one.get(key), f"{self.where} mounts")
        if says is None:
            return None
        return {"path": target.string(), **says, **({"readOnly": True} if only is not None and only.truth() else {})}


def _clean(path: str) -> str:
    return "/" + posixpath.normpath(path).lstrip("/")
