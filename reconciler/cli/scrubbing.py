"""Taking secrets out of texts and objects that leave the node. Pure.

Rules of this file: two nets, one behind the other. What is known to be secret (values of Secrets, passwords of logins,
variables with a telling name) is taken out wherever it stands, in any of the forms in which it may be written; what
only looks like a secret (`user:password@`, `Bearer …`, `--token=…`, private keys) is taken out by its look. Too much
is taken out rather than too little.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote

from reconciler.cli.masks import hide, masked
from reconciler.decide.edits import MASK
from reconciler.model.identity import Kind
from reconciler.model.objects import Object

_SHORTEST: Final = 4
_TELLING: Final = r"[\w.-]*(?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|private[_-]?key|credential)[\w.-]*"
_NAMED: Final = re.compile(rf"(?i){_TELLING}")
_LOOKS: Final = (
    (re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s@\"']+@"), rf"\1{MASK}@"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), MASK),
    (re.compile(r"AGE-SECRET-KEY-1[0-9A-Za-z]+"), MASK),
    (re.compile(r"(?i)\b((?:proxy-)?authorization|cookie|x-api-key)(\s*[:=]\s*)[^\r\n\"]+"), rf"\1\2{MASK}"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {MASK}"),
    (re.compile(rf"(?i)(?<!\w)(--?{_TELLING}[ =])([^\s\"']+)"), rf"\1{MASK}"),
    (re.compile(rf"(?i)\b({_TELLING}=)[^\s\"',;&]+"), rf"\1{MASK}"),
    (re.compile(r"(?i)\b((?:password|passwd|passphrase)\s*:\s*)[^\s\"',;&]+"), rf"\1{MASK}"),
)
_HIDDEN: Final = frozenset({"fileContent", "seccompContent", "apparmorContent", "stringData"})


class Scrubber:
    """Replaces the known secrets, and what looks like one, by the mask."""

    def __init__(self, secrets: Iterable[bytes]) -> None:
        needles = {form for secret in secrets for form in _forms(secret) if len(form) >= _SHORTEST}
        ordered = sorted(needles, key=len, reverse=True)  # the whole before a part of it
        self._known = re.compile("|".join(map(re.escape, ordered))) if ordered else None

    def text(self, text: str) -> str:
        """`text` without what is known, then without what looks like it."""
        if self._known is not None:
            text = self._known.sub(MASK, text)
        for look, instead in _LOOKS:
            text = look.sub(instead, text)
        return text


def _forms(secret: bytes) -> Iterator[str]:
    """A secret as it may be written: itself, its lines, in JSON, in a URL, in base64 (also within a longer text)."""
    for part in {secret, secret.strip(), *(line.strip() for line in secret.splitlines() if len(line.strip()) > 7)}:
        if len(part) < _SHORTEST:
            continue
        text = part.decode("utf-8", "replace")
        yield from (text, json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], quote(text, safe=""))
        for shift in range(3):  # base64 of a text that holds it depends on where it begins
            for encode in (base64.b64encode, base64.urlsafe_b64encode):
                encoded = encode(b"\0" * shift + part).decode().rstrip("=")
                inner = encoded[(0, 2, 3)[shift] : len(encoded) - (1 if (shift + len(part)) % 3 else 0)]
                if len(inner) >= 8:
                    yield inner


def secrets_in(objects: Iterable[Object]) -> Iterator[bytes]:
    """Every value that objects hold and that is secret, or is named as if it were."""
    for obj in objects:
        if obj.kind is Kind.SECRET:
            yield from _values(obj.spec)
        for source in (obj.spec, obj.record):
            yield from _named_variables(source)


def _values(spec: Mapping[str, Any]) -> Iterator[bytes]:
    for value in spec.get("stringData", {}).values():
        yield str(value).encode()
    for value in spec.get("data", {}).values():
        yield str(value).encode()
        try:
            yield base64.b64decode(str(value))
        except (binascii.Error, ValueError):
            continue


def _named_variables(value: Any) -> Iterator[bytes]:
    if isinstance(value, Mapping):
        if _NAMED.fullmatch(str(value.get("name", ""))) and isinstance(value.get("value"), str):
            yield value["value"].encode()
        for part in value.values():
            yield from _named_variables(part)
    elif isinstance(value, list | tuple):
        for part in value:
            name, equals, text = part.partition("=") if isinstance(part, str) else ("", "", "")
            if equals and _NAMED.fullmatch(name):
                yield text.encode()
            yield from _named_variables(part)


def logins_in(text: str) -> Iterator[bytes]:
    """Every password and token of a docker `config.json`; nothing for what is none."""
    try:
        auths = json.loads(text).get("auths", {})
        entries = [entry for entry in auths.values() if isinstance(entry, dict)]
    except (ValueError, AttributeError):
        return
    for entry in entries:
        for name in ("password", "identitytoken", "registrytoken", "auth"):
            yield str(entry.get(name) or "").encode()
        try:
            yield base64.b64decode(str(entry.get("auth") or "")).partition(b":")[2]
        except (binascii.Error, ValueError):
            continue


def bare(obj: Object) -> dict[str, Any]:
    """An object as a support bundle has it: no value of a secret, a variable or an inline file; with its record."""
    shape = masked(obj)
    shape["record"] = dict(obj.record)
    for part in ("spec", "record", "status"):
        shape[part] = _bared(shape[part])
    return shape


def _bared(value: Any, name: str = "") -> Any:
    if name in _HIDDEN:
        return hide(value)
    if isinstance(value, Mapping):
        variable = name == "env" and "value" in value
        return {
            key: MASK if variable and key == "value" else MASK if _is_secret(key, part) else _bared(part, key)
            for key, part in value.items()
        }
    if isinstance(value, list | tuple):
        return _bared_list(value, name)
    return value


def _is_secret(name: str, value: Any) -> bool:
    """`password: …`, but not `secret: login`, which is a name."""
    return isinstance(value, str) and name != "secret" and _NAMED.fullmatch(name) is not None


def _bared_list(values: list[Any] | tuple[Any, ...], name: str) -> list[Any]:
    found: list[Any] = []
    for before, value in zip([None, *values], values, strict=False):
        flag = isinstance(before, str) and re.fullmatch(rf"(?i)--?{_TELLING}", before)
        if flag and isinstance(value, str):
            found.append(MASK)
        elif name.lower() == "env" and isinstance(value, str) and "=" in value:
            found.append(f"{value.partition('=')[0]}={MASK}")
        else:
            found.append(_bared(value, name))
    return found
