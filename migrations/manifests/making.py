"""The manifests that come out: documents in order, names that are names, text that nothing is put into.

Rules of this file: what is made here is what the loader of manifests takes; where the input has something that no
manifest can hold, the caller hears so and accounts for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import field
from typing import Any, Final, NamedTuple

from core.values import dataclass
from migrations.config.work import Entry, Outcome
from migrations.manifests.given import Account, Given

API_VERSION: Final = "reconciler/v1"
LATER_WHY: Final = "is not supported yet"

_LABEL_KEY: Final = re.compile(r"[a-zA-Z0-9]([-a-zA-Z0-9_./]{0,251}[a-zA-Z0-9])?")
_LABEL_VALUE: Final = re.compile(r"([a-zA-Z0-9]([-a-zA-Z0-9_.]{0,61}[a-zA-Z0-9])?)?")
_SYSCTL: Final = re.compile(r"kernel\.(?:shm[a-z_]+|msg[a-z]+|sem)|fs\.mqueue\.[a-z_]+|net\.[-a-zA-Z0-9_./]{1,200}")
_USER: Final = re.compile(r"[a-zA-Z0-9_][-a-zA-Z0-9_.]{0,31}(:[a-zA-Z0-9_][-a-zA-Z0-9_.]{0,31})?")
_HOST_LABEL: Final = r"[a-zA-Z0-9]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?"
_HOSTNAME: Final = re.compile(rf"{_HOST_LABEL}(\.{_HOST_LABEL})*")
_DATA_KEY: Final = re.compile(r"(?!\.{1,2}$)[-._a-zA-Z0-9]{1,253}")
_SIGNAL: Final = re.compile(r"(?:SIG)?[A-Z][A-Z0-9+-]{1,10}|[1-9][0-9]?")
_ENV_NAME: Final = re.compile(r"[^=\0\n]{1,256}")
_PUT_IN: Final = re.compile(r"\$\$\{|\$\{(?:node|values)\.[^{}]{1,253}\}")
_HOSTS: Final = 65535


class Settings(NamedTuple):
    """What a conversion must know of its surroundings.

    `folder`: where the input lies (absolute), and where what comes out will lie; `read`: the bytes of a file beside
    it, by its path, or None; `variables`: what `${NAME}` means in a compose file; `later`: what this version knows and
    does not do yet, as `Kind.path`.
    """

    folder: str = "/"
    read: Callable[[str], bytes | None] = lambda path: None
    variables: Mapping[str, str] = {}
    later: frozenset[str] = frozenset()


class Result(NamedTuple):
    """What came out: the documents, a line for each key of the input, and sentences about the whole."""

    documents: list[dict[str, Any]]
    entries: list[Entry]
    told: list[str]

    @property
    def dropped(self) -> bool:
        """Whether anything was."""
        return any(entry.outcome is Outcome.DROPPED for entry in self.entries)


@dataclass(slots=True)
class Made:
    """The documents so far."""

    documents: list[dict[str, Any]] = field(default_factory=list)
    names: set[tuple[str, str]] = field(default_factory=set)
    images: dict[str, str] = field(default_factory=dict)

    def name(self, kind: str, wanted: str) -> str:
        """A name that no other object of the kind has, as near to `wanted` as a name can be."""
        base = name_for(wanted)
        free = base
        for number in range(2, 10_000):
            if (kind, free) not in self.names:
                break
            free = f"{base[:57].rstrip('-.')}-{number}"
        self.names.add((kind, free))
        return free

    def add(self, kind: str, name: str, spec: Mapping[str, Any], **metadata: Mapping[str, str]) -> None:
        """A document; what is empty in its metadata is left out, and so is what is empty in its spec."""
        whole = {"name": name, **{key: dict(value) for key, value in metadata.items() if value}}
        kept = {key: value for key, value in spec.items() if value not in ({}, [], None, "")}
        self.documents.append(literal({"apiVersion": API_VERSION, "kind": kind, "metadata": whole, "spec": kept}))

    def secret(self, name: str) -> Mapping[str, Mapping[str, str]] | None:
        """What a Secret that was made holds; None where there is none of that name."""
        for one in self.documents:
            if one["kind"] == "Secret" and one["metadata"]["name"] == name:
                found: Mapping[str, Mapping[str, str]] = one["spec"]
                return found
        return None

    def secret_of(self, wanted: str, parts: Mapping[str, Mapping[str, str]]) -> str:
        """A Secret with texts out of other ones, which are literal already; gives its name."""
        name = self.name("Secret", wanted)
        self.documents.append(
            {"apiVersion": API_VERSION, "kind": "Secret", "metadata": {"name": name}, "spec": dict(parts)}
        )
        return name

    def image(self, ref: str, more: Mapping[str, Any]) -> str:
        """What a Container says under `image`: the reference, or the name of an Image where more is to be said."""
        if not more:
            return ref if {"/", ":", "@"} & set(ref) else f"{ref}:latest"
        key = repr((ref, sorted(more.items(), key=str)))
        if key not in self.images:
            path = re.sub(r"[:@].*", "", ref.rsplit("/", 1)[-1])
            self.images[key] = self.name("Image", path)
            self.add("Image", self.images[key], {"ref": ref, **more})
        return self.images[key]


def name_for(text: str) -> str:
    """A name of `text`: a-z, 0-9, '-' and single '.'."""
    name = re.sub(r"\.\.+", ".", re.sub(r"[^a-z0-9.]+", "-", text.lower()))
    return name[:63].strip("-.") or "unnamed"


def literal(value: Any) -> Any:
    """Values whose text means itself: nothing of the node is put into it."""
    if isinstance(value, Mapping):
        return {key: literal(one) for key, one in value.items()}
    if isinstance(value, list):
        return [literal(one) for one in value]
    return _PUT_IN.sub(lambda found: f"${found[0]}", value) if isinstance(value, str) and "${" in value else value


def words(account: Account, given: Given | None, to: str) -> tuple[dict[str, str], dict[str, str]]:
    """Labels, and as annotations those whose value no label can have; compose writes them as `KEY=VALUE` too."""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    for key, value, place in pairs(given):
        if not _LABEL_KEY.fullmatch(key):
            account.dropped(place, "no label or annotation can have this key: write another")
        elif _LABEL_VALUE.fullmatch(value):
            labels[key] = value
            account.moved(place, f"{to} metadata.labels")
        else:
            annotations[key] = value
            account.translated(place, f"{to} metadata.annotations", "no label can have this value; an annotation can")
    return labels, annotations


def annotations_of(account: Account, given: Given | None, to: str) -> dict[str, str]:
    """Annotations, whose values are free."""
    found: dict[str, str] = {}
    for key, value, place in pairs(given):
        if _LABEL_KEY.fullmatch(key):
            found[key] = value
            account.moved(place, f"{to} metadata.annotations")
        else:
            account.dropped(place, "no annotation can have this key: write another")
    return found


def pairs(given: Given | None) -> list[tuple[str, str, Given]]:
    """Keys and values of a mapping, or of a list of `KEY=VALUE`, with their places."""
    if given is None or given.null:
        return []
    if given.items is None:
        return [(key, "" if one.null else one.string(), one) for key, one in given.mapping().items()]
    cut = [(one.string().partition("="), one) for one in given.items]
    return [(key, value, one) for (key, _, value), one in cut]


def texts(given: Given | None) -> list[str]:
    """A list of texts; one text is a list of one."""
    if given is None:
        return []
    return [one.string() for one in given.listing()] if given.items is not None or given.null else [given.string()]


def absolute(text: str) -> bool:
    """Whether a manifest takes this as a path: from /, without `..`."""
    return text.startswith("/") and ".." not in text.split("/") and len(text) < 4000 and text.isprintable()


def mountable(text: str) -> bool:
    """Whether something can be mounted there."""
    return absolute(text) and text.strip("/.") != ""


def is_sysctl(name: str) -> bool:
    """Whether a sandbox has this sysctl of its own."""
    return _SYSCTL.fullmatch(name) is not None


def is_user(text: str) -> bool:
    """`user` or `user:group`."""
    return _USER.fullmatch(text) is not None


def is_hostname(text: str) -> bool:
    """Whether a sandbox can be called so."""
    return _HOSTNAME.fullmatch(text) is not None


def is_data_key(text: str) -> bool:
    """Whether a Secret can have this key."""
    return _DATA_KEY.fullmatch(text) is not None


def is_signal(text: str) -> bool:
    """Whether it looks like the name or number of a signal."""
    return _SIGNAL.fullmatch(text) is not None


def is_env_name(text: str) -> bool:
    """Whether a variable can be called so."""
    return _ENV_NAME.fullmatch(text) is not None


def is_port(number: int) -> bool:
    """Whether it is the number of a port."""
    return 1 <= number <= _HOSTS
