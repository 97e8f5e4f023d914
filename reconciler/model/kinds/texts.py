"""Words as people write them: names, paths, references, keys. Each is checked where it is read.

Rules of this file: what becomes a path, a cgroup or an argument later cannot hold `..`, NUL or a line break.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import posixpath
import re
from collections.abc import Callable
from typing import Annotated, Final

from core.errors import Invalid
from core.transfer import platform, reference
from reconciler.model.identity import NAME, checked_name
from reconciler.model.kinds.quantities import read_by, text_of
from reconciler.model.problems import Wrong

_HOST_LABEL: Final = r"[a-zA-Z0-9]([-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?"
_HOSTNAME: Final = re.compile(rf"{_HOST_LABEL}(\.{_HOST_LABEL})*")
_USER: Final = re.compile(r"[a-zA-Z0-9_][-a-zA-Z0-9_.]{0,31}\$?(:[a-zA-Z0-9_][-a-zA-Z0-9_.]{0,31}\$?)?")
_ENV_NAME: Final = re.compile(r"[^=\0\n]{1,256}")
_DATA_KEY: Final = re.compile(r"(?!\.{1,2}$)[-._a-zA-Z0-9]{1,253}")
_LABEL_KEY: Final = re.compile(r"[a-zA-Z0-9]([-a-zA-Z0-9_./]{0,251}[a-zA-Z0-9])?")
_LABEL_VALUE: Final = re.compile(r"([a-zA-Z0-9]([-a-zA-Z0-9_.]{0,61}[a-zA-Z0-9])?)?")
_NODE_FACT: Final = re.compile(r"name|labels\.[a-zA-Z0-9]([-a-zA-Z0-9_./]{0,251}[a-zA-Z0-9])?")
_DNS_OPTION: Final = re.compile(r"[a-z0-9-]{1,32}(:[0-9]{1,5})?")
_HTTP_PATH: Final = re.compile(r"/[!-~]{0,2000}")
_LONGEST_PATH: Final = 4095


def matching(pattern: re.Pattern[str], message: str, advice: str) -> Callable[[object], str]:
    """A reader of text that `pattern` matches whole."""

    def read(value: object) -> str:
        if pattern.fullmatch(text := text_of(value)):
            return text
        raise Wrong(message, advice)

    return read


def parse_name(value: object) -> str:
    """An object's name."""
    try:
        return checked_name(text_of(value))
    except Invalid as error:
        raise Wrong("is not a name", _advice(error)) from None


def parse_absolute(value: object) -> str:
    """An absolute path without `..`, normalised."""
    text = text_of(value)
    if not text.startswith("/") or ".." in text.split("/") or len(text) > _LONGEST_PATH or "\n" in text:
        raise Wrong("is not an absolute path", "write a path that begins with / and has no .. in it")
    return "/" + posixpath.normpath(text).lstrip("/")


def parse_mount_path(value: object) -> str:
    """An absolute path that is not the root itself."""
    if (path := parse_absolute(value)) == "/":
        raise Wrong("is the root itself", "mount on a folder or file below /, such as /data")
    return path


def parse_relative(value: object) -> str:
    """A path relative to the manifest's file; whether it leaves the source's folder is seen when it is opened."""
    text = text_of(value)
    if not text or text.startswith("/") or len(text) > _LONGEST_PATH:
        raise Wrong("is not a relative path", "write a path relative to this file, such as config/app.conf")
    return text


def parse_archive(value: object) -> str:
    """An absolute path, or one relative to the manifest's file, which is made absolute when the manifest is read."""
    text = text_of(value)
    if text.startswith("/"):
        return parse_absolute(text)
    if not text or len(text) > _LONGEST_PATH or "\n" in text or "\0" in text:
        raise Wrong("is not a path", "write a path relative to this file, such as images/web.tar, or an absolute one")
    return text


def parse_reference(value: object) -> str:
    """An image reference, as written; see `core.transfer.reference`."""
    text = text_of(value)
    try:
        reference.parse(text)
    except (Invalid, ValueError) as error:
        cause = str(error).removeprefix(f"image reference {text[:100]!r}: ")
        advice = _advice(error) if isinstance(error, Invalid) else ""
        raise Wrong(f"is not an image reference: {cause}", advice or "write it like host/name:tag") from None
    return text


def _advice(error: Invalid) -> str:
    """A hint as the second half of a line."""
    hint = error.hint().rstrip(".")
    return hint[:1].lower() + hint[1:]


def parse_platform(value: object) -> str:
    """`os/architecture[/variant]`, as written; see `core.transfer.platform`."""
    text = text_of(value)
    try:
        platform.parse(text)
    except Invalid as error:
        raise Wrong("is not a platform", "write os/architecture[/variant], such as linux/arm64/v8") from error
    return text


def is_reference(image: str) -> bool:
    """Whether a Container's `image` is a reference (it has `/`, `:` or `@`), not an Image object's name."""
    return not {"/", ":", "@"}.isdisjoint(image)


def parse_image(value: object) -> str:
    """An Image object's name or an image reference."""
    return parse_reference(value) if is_reference(text_of(value)) else parse_name(value)


def parse_address(value: object) -> str:
    """An IP address, version 4 or 6."""
    try:
        return str(ipaddress.ip_address(text_of(value)))
    except ValueError as error:
        if isinstance(error, Wrong):
            raise
        raise Wrong("is not an IP address", "write an address, such as 9.9.9.9") from None


def parse_base64(value: object) -> str:
    """Base64 with its padding, as written; whitespace (line breaks) inside is fine."""
    text = text_of(value)
    try:
        decoded_base64(text)
    except (binascii.Error, ValueError):
        raise Wrong("is not base64", "encode it (base64 FILE), or write it as it is under stringData") from None
    return text


def decoded_base64(text: str) -> bytes:
    """The bytes; raises `ValueError` (binascii.Error) when it is not base64 of RFC 4648, section 4."""
    return base64.b64decode("".join(text.split()).encode("ascii"), validate=True)


_NAME_SCHEMA: Final = {"pattern": f"^{NAME.pattern}$", "maxLength": 63}

Name = Annotated[str, *read_by(parse_name, _NAME_SCHEMA)]
AbsolutePath = Annotated[str, *read_by(parse_absolute, {"pattern": "^/"})]
MountPath = Annotated[str, *read_by(parse_mount_path, {"pattern": "^/."})]
RelativePath = Annotated[str, *read_by(parse_relative, {"pattern": "^[^/]"})]
ArchivePath = Annotated[str, *read_by(parse_archive, {"examples": ["images/web.tar"]})]
ImageReference = Annotated[str, *read_by(parse_reference, {"examples": ["registry.local:5000/web:1.2"]})]
PlatformText = Annotated[str, *read_by(parse_platform, {"examples": ["linux/arm64/v8"]})]
ImageNameOrReference = Annotated[str, *read_by(parse_image, {"examples": ["web", "docker.io/library/nginx:1.27"]})]
Address = Annotated[str, *read_by(parse_address, {"examples": ["9.9.9.9"]})]
Base64 = Annotated[str, *read_by(parse_base64, {"contentEncoding": "base64"})]


def _word(pattern: re.Pattern[str], message: str, advice: str) -> tuple[object, ...]:
    return read_by(matching(pattern, message, advice), {"pattern": f"^(?:{pattern.pattern})$"})


Hostname = Annotated[str, *_word(_HOSTNAME, "is not a host name", "use letters, digits and '-', such as web-1")]
UserText = Annotated[str, *_word(_USER, "is not a user", 'write user or user:group, such as "1000:1000" or www-data')]
EnvName = Annotated[str, *_word(_ENV_NAME, "is not a variable's name", "write a name without '=', such as LOG_LEVEL")]
DataKey = Annotated[
    str, *_word(_DATA_KEY, "is not a key of a Secret", "use up to 253 letters, digits, '-', '_' and '.'")
]
LabelKey = Annotated[
    str, *_word(_LABEL_KEY, "is not a label's key", "use letters, digits, '-', '_', '.', '/', such as app or a.org/app")
]
LabelValue = Annotated[
    str, *_word(_LABEL_VALUE, "is not a label's value", "use up to 63 letters, digits, '-', '_' and '.'")
]
HttpPath = Annotated[str, *_word(_HTTP_PATH, "is no path of a URL", "begin it with /, as in /healthz")]
NodeFact = Annotated[str, *_word(_NODE_FACT, "is no fact of the node", "write name or labels.NAME")]
DnsOption = Annotated[str, *_word(_DNS_OPTION, "is not a resolver option", "write one like ndots:2")]
