"""Configs and secrets of a compose file: files beside it, texts in it, variables.

Rules of this file: a secret is a Secret, whatever it came from; a config that is a file is mounted as a file beside the
manifest, any other one is a Secret too.
"""

from __future__ import annotations

import base64
import posixpath
from collections.abc import Mapping
from typing import Any, Final

from core.values import dataclass
from migrations.config.work import Outcome
from migrations.manifests.given import Account, Given
from migrations.manifests.making import Made, Settings, absolute, is_data_key, mountable

SECRETS: Final = "/run/secrets"
_OUTSIDE: Final = "is outside of this file: apply a Secret with it as a key, and mount that"
_ELSEWHERE: Final = "can be mounted only as a file in a folder of its own"


@dataclass(slots=True)
class Files:
    """What `configs` and `secrets` at the top say."""

    account: Account
    made: Made
    settings: Settings
    root: Given

    def mounts(self, service: Given, name: str) -> list[dict[str, Any]]:
        """The mounts of one service: its configs one by one, its secrets by folder."""
        folders: dict[str, dict[str, bytes]] = {}
        mounts: list[dict[str, Any]] = []
        for kind, folder in (("configs", ""), ("secrets", SECRETS)):
            given = service.get(kind)
            for one in given.listing() if given is not None else ():
                mounts += self._one(one, kind, folder, folders)
        for folder, held in folders.items():
            secret = self.made.name("Secret", f"{name}{'' if folder == SECRETS else folder}-secrets")
            data = {key: base64.b64encode(content).decode() for key, content in held.items()}
            self.made.add("Secret", secret, {"data": data})
            mounts.append({"path": folder, "secret": secret})
        return mounts

    def _one(self, one: Given, kind: str, folder: str, folders: dict[str, dict[str, bytes]]) -> list[dict[str, Any]]:
        source = one.get("source") if one.fields is not None else one
        if source is None:
            raise one.bad("names no source", "Write source: NAME.")
        top = self.root.get(kind, source.string())
        if top is None:
            raise source.bad(f"is not under {kind} of this file", f"Add it to {kind}.")
        target = one.get("target") if one.fields is not None else None
        path = posixpath.join(folder or "/", target.string() if target is not None else source.string())
        if top.get("external") is not None:
            self.account.dropped(one, _OUTSIDE)
            self.account.dropped(top, _OUTSIDE)
            return []
        if not mountable(path):
            self.account.dropped(one, "is mounted on an absolute path below /")
            return []
        file = top.get("file")
        if kind == "configs" and file is not None:
            self._said(one, f"mounts: {path}", "")
            return [self._file(file, top, path)]
        return self._secret(one, top, path, folders)

    def _file(self, file: Given, top: Given, path: str) -> dict[str, Any]:
        """A file beside the manifest, or one of the node where it lies elsewhere."""
        inside = posixpath.normpath(file.string())
        if self.settings.read(inside) is None:
            raise file.bad("is not there", "Correct the path; it is relative to this file.")
        if absolute(inside) or inside.startswith(".."):
            where = posixpath.normpath(posixpath.join(self.settings.folder, inside))
            self.account.translated(
                file, f"mounts: {path} bind", "a file of this node, as it lies outside of this folder"
            )
            return {"path": path, "bind": {"source": where}, "readOnly": True}
        self.account.moved(file, f"mounts: {path} file")
        return {"path": path, "file": inside}

    def _secret(self, one: Given, top: Given, path: str, folders: dict[str, dict[str, bytes]]) -> list[dict[str, Any]]:
        folder, key = posixpath.split(path)
        if not is_data_key(key) or not mountable(folder) or folder in ("/etc", "/usr", "/bin", "/run", "/var", "/home"):
            self.account.dropped(one, _ELSEWHERE)
            self.account.dropped(top, _ELSEWHERE)
            return []
        folders.setdefault(folder, {})[key] = self._content(top)
        how = "a key of a Secret; the files are for the container's user alone"
        self._said(one, f"mounts: {folder}", how)
        for known in ("file", "content", "environment"):
            self.account.translated(top.get(known), f"mounts: {folder}", how)
        return []

    def _said(self, one: Given, to: str, how: str) -> None:
        """What a service says of a file; owner and mode have no place."""
        outcome = Outcome.TRANSLATED if how else Outcome.MOVED
        for known in [one] if one.fields is None else [one.get("source"), one.get("target")]:
            self.account.say(known, outcome, how, to)
        for key in ("uid", "gid", "mode"):
            self.account.dropped(one.get(key) if one.fields is not None else None, "a file is its container's user's")

    def _content(self, top: Given) -> bytes:
        if (text := top.get("content")) is not None:
            return text.string().encode()
        if (variable := top.get("environment")) is not None:
            value = self.settings.variables.get(variable.string())
            if value is None:
                raise variable.bad("names a variable that is not set", f"Set it: export {variable.string()}=…")
            return value.encode()
        file = top.get("file")
        content = self.settings.read(posixpath.normpath(file.string())) if file is not None else None
        if file is None or content is None:
            raise (file or top).bad("is not there", "Correct the path; it is relative to this file.")
        return content


def environment_file(settings: Settings, given: Given) -> Mapping[str, str]:
    """The variables of an `env_file`; raises `BadDocument` where it has to be there and is not."""
    path = given.get("path") if given.fields is not None else given
    needed = given.get("required") if given.fields is not None else None
    if path is None:
        raise given.bad("names no file", "Write path: FILE.")
    content = settings.read(posixpath.normpath(path.string()))
    if content is None:
        if needed is not None and not needed.truth():
            return {}
        raise path.bad("is not there", "Correct the path; it is relative to this file.")
    found = {}
    for line in content.decode(errors="replace").splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and name.strip() and not name.startswith("#"):
            found[name.strip()] = value.strip().strip("'\"")
    return found
