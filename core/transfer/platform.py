"""Platforms, and which of an index's images a node can run (OCI image-spec, image-index.md, platform)."""

from __future__ import annotations

import platform as host
import re
from collections.abc import Iterable
from typing import Final

from core.errors import Invalid, NotFound
from core.values import dataclass

_WORD: Final = re.compile(r"[a-z0-9_.-]{1,40}", re.IGNORECASE)
_MACHINES: Final = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv8l": ("arm", "v7"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armv5l": ("arm", "v5"),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "loongarch64": ("loong64", ""),
}
_PLAIN_VARIANT: Final = {"amd64": "v1", "arm64": "v8"}
"""The variant that an architecture without one means; it is written as ""."""
_DESCENDING: Final = re.compile(r"v([1-9])")


@dataclass(frozen=True, slots=True)
class Platform:
    """Operating system, architecture and variant in Go's words, normalised: arm64/v8 is arm64, x86_64 is amd64."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)


def normalised(os: str, architecture: str, variant: str = "") -> Platform:
    """The one spelling of a platform."""
    machine, implied = _MACHINES.get(architecture.lower(), (architecture.lower(), ""))
    word = variant.lower() or implied or ("v7" if machine == "arm" else "")
    word = f"v{word}" if word.isdecimal() else word
    return Platform(os.lower(), machine, "" if _PLAIN_VARIANT.get(machine) == word else word)


def parse(text: str) -> Platform:
    """Read `os/architecture[/variant]`; raises `Invalid`."""
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(_WORD.fullmatch(part) for part in parts):
        raise Invalid(f"not a platform: {text[:100]!r}", advice="Write os/architecture, such as linux/arm64.")
    return normalised(*parts)


def of_node() -> Platform:
    """What this machine runs."""
    return normalised("linux", host.machine())


def acceptable(wanted: Platform) -> list[Platform]:
    """What serves `wanted`, best first: itself, then the older variants of its architecture."""
    found = [wanted]
    if wanted.architecture == "wasm":  # both names for the system are in use, with and without its version
        found += [Platform(name, "wasm") for name in ("wasi", "wasip1", "wasip2") if name != wanted.os]
    if newest := _DESCENDING.fullmatch(wanted.variant):
        oldest = 5 if wanted.architecture == "arm" else 1
        for version in range(int(newest[1]) - 1, oldest - 1, -1):
            found.append(normalised(wanted.os, wanted.architecture, f"v{version}"))
    return found


def missing(what: str, wanted: Platform, there: Iterable[Platform]) -> NotFound:
    """The error that lists the platforms that are there."""
    listed = ", ".join(sorted({str(platform) for platform in there})) or "nothing that names its platform"
    return NotFound(
        f"{what} has no image for {wanted}; there is {listed}",
        advice="Set spec.platform to one that is there, or push an image for this platform.",
    )
