"""AppArmor profiles that come as a text: read, loaded under a name of our own, and taken away when no task has them.

Rules of this file: the name is made of the instance and of the text, so no profile of the node's own is ever replaced,
and the same text is one profile. A profile confines who is put into it and nobody else: one that attaches itself to
programs of the node is refused, and so is one that reads files other than the node's own abstractions. Form:
apparmor.d(5); loading: apparmor_parser(8).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from core import fsio
from core.errors import Failed, Invalid, from_os_error
from core.process import Launcher, find
from core.runtime.node import APPARMOR_PROFILES, loaded_profiles
from core.values import dataclass

MOST_BYTES: Final = 256 << 10
_REMOVE: Final = APPARMOR_PROFILES.with_name(".remove")
_SECONDS: Final = 60.0
_MOST_CONFIG: Final = 4 << 20
_QUIET: Final = r'"[^"\n]*"|#(?!include\b)[^\n]*'
"""What braces do not count in: quoted words, comments. Patterns are compiled at their use: few nodes need them."""
_HEADER: Final = r"(?m)^[ \t]*profile\s+(?P<name>[A-Za-z0-9_][\w.+-]*)\s*(?:flags\s*=\s*\([\w,\s]*\)\s*)?\{"
_INCLUDE: Final = r"(?m)(?:^|[\s{};,])#?include\b[ \t]*(?:if[ \t]+exists[ \t]*)?(?P<what>[^\n]*)"
_ABSTRACTION: Final = r"<[A-Za-z0-9_][\w./-]*>[ \t]*(?:#.*)?"
_FORM: Final = "Write one `profile NAME flags=(…) { … }`, without the path of a program."


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile that can be loaded under another name; `name` is the one in its text."""

    name: str
    text: str

    def renamed(self, name: str) -> str:
        """The text under that name, also where its rules speak of it: `peer=NAME`, `label=NAME`, `-> NAME`."""
        own = re.escape(self.name)
        text = re.sub(rf"((?:peer|label)\s*=\s*|->\s*){own}(?![\w.+-])", rf"\g<1>{name}", self.text)
        return re.sub(rf"^([ \t]*profile\s+){own}(?![\w.+-])", rf"\g<1>{name}", text, count=1, flags=re.M)


def parse(data: bytes, what: str) -> Profile:
    """The profile in a file; `what` names it. Raises `Invalid` for what is none, or would reach beyond its tasks."""
    if len(data) > MOST_BYTES:
        raise Invalid(f"{what} is larger than {MOST_BYTES} bytes")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        raise Invalid(f"{what} is no AppArmor profile", advice=_FORM) from None
    for found in re.finditer(_INCLUDE, text):
        if not re.fullmatch(_ABSTRACTION, found["what"]) or ".." in found["what"]:
            advice = "Include only by <…>: the node's own parts."
            raise Invalid(f"{what} includes {found['what'][:80]!r}", advice=advice)
    plain = re.sub(_QUIET, lambda found: " " * len(found[0]), text)
    headers = [found for found in re.finditer(_HEADER, plain) if _depth(plain[: found.start()]) == 0]
    if len(headers) != 1 or len([*_tops(plain)]) != 1:
        raise Invalid(f"{what} is not one profile with a name", advice=_FORM)
    return Profile(headers[0]["name"], text)


def _tops(text: str) -> Iterator[int]:
    """Where blocks begin that lie in no other: braces that follow a space; those within paths do not."""
    for found in re.finditer(r"\s\{", text):
        if _depth(text[: found.start()]) == 0:
            yield found.start()


def _depth(text: str) -> int:
    return text.count("{") - text.count("}")


class AppArmor:
    """The profiles of one instance. `bundles`: where tasks are; the `config.json` of each names its profile."""

    def __init__(self, launcher: Launcher, instance: str, bundles: Path) -> None:
        self._launcher = launcher
        self._prefix = f"reconciler-{instance}-"
        self._bundles = bundles
        self._new: set[str] = set()

    def load(self, data: bytes, what: str) -> str:
        """Have the kernel know the profile in `data`; returns the name that a task asks for.

        Raises `Invalid` (it is none, or the parser refuses it), `MissingTool`, `Failed`.
        """
        profile = parse(data, what)
        name = f"{self._prefix}{hashlib.sha256(data).hexdigest()[:16]}"
        self._new.add(name)
        if name in (loaded_profiles() or ()):
            return name
        argv = [find("apparmor_parser", "apparmor"), "--replace", "--skip-cache"]
        done = self._launcher.run(argv, stdin=profile.renamed(name).encode(), timeout=_SECONDS)
        if done.code != 0:
            raise Invalid(f"{what}: {done.complaint()}", advice="Try it with `apparmor_parser --preprocess`.")
        if name not in (loaded_profiles() or ()):
            raise Failed(f"{what} was loaded, and the kernel does not know it")
        return name

    def collect(self) -> None:
        """Take away what no task has; what was loaded since the last time is left, as its task may just be made."""
        mine = [name for name in loaded_profiles() or () if name.startswith(self._prefix)]
        if mine:
            used = set(self._used())
            for name in sorted({*mine} - used - self._new):
                _remove(name)
        self._new.clear()

    def _used(self) -> Iterator[str]:
        for path in self._bundles.glob("*/config.json"):
            data = fsio.read_if_there(path, _MOST_CONFIG)
            if data is not None:
                yield str(json.loads(data).get("process", {}).get("apparmorProfile", ""))


def _remove(name: str) -> None:
    try:
        _REMOVE.write_text(name)
    except FileNotFoundError:
        return  # it is gone
    except OSError as error:
        raise from_os_error(error, f"removing AppArmor profile {name}") from error
