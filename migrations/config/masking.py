"""A document without what nobody should see, for printing it."""

from __future__ import annotations

import re
from typing import Any, Final

from migrations.config.logins import LOGIN_KEYS
from migrations.config.migrate import Result, render
from migrations.config.tree import Path, leaves

MASK: Final = "***"
_IN_URL: Final = re.compile(r"(?<=://)[^/@\s\"']+@")
_SECRET_HEADERS: Final = ("authorization", "proxy-authorization", "cookie")


def masked(result: Result) -> bytes:
    """The document with passwords of logins, headers and URLs masked; the same bytes where there are none.

    The tree of the result is changed: it is for a result that is about to be printed.
    """
    found = False
    for path, node in leaves(result.tree):
        if node.value and _is_secret(path):
            node.value, node.raw = MASK if isinstance(node.value, str) else [MASK], ""
            found = True
        elif (clean := _clean(node.value)) != node.value:
            node.value, node.raw = clean, ""
            found = True
    return render(result.tree, result.format) if found else result.text


def _is_secret(path: Path) -> bool:
    if "registry" not in path or path[0] != "plugins":
        return False
    login = path[-1] in LOGIN_KEYS[1:] and ("auth" in path[:-1] or "auths" in path)
    return login or ("headers" in path and path[-1].lower() in _SECRET_HEADERS)


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return _IN_URL.sub(f"{MASK}@", value)
    return [_clean(one) for one in value] if type(value) is list else value
