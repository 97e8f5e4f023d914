"""Where a repository is and what is wanted of it, as people write them. Checked before anything is asked.

Rules of this file: an address is taken apart here by us, never only by git; nothing in it can become an option or a
command: no `-` in front, no transport helper (`ext::`), no login, no %-escape that would be undone later. A name of a
branch or tag is one by `git check-ref-format`.
"""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, TypeAlias, get_args

from core.errors import Denied
from core.transfer.auth import check_address, is_loopback
from core.values import dataclass
from reconciler.model.kinds.quantities import read_by, text_of
from reconciler.model.problems import Wrong

Scheme: TypeAlias = Literal["https", "http", "ssh", "file"]

_LONGEST: Final = 2048
_HOST: Final = r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9._-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])"
_USER: Final = r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9._-]{0,63})@)?"
_WEB: Final = re.compile(rf"(?P<scheme>https?)://{_HOST}(?::(?P<port>[0-9]{{1,5}}))?(?P<path>/[!-~]*)")
_SSH: Final = re.compile(rf"(?P<scheme>ssh)://{_USER}{_HOST}(?::(?P<port>[0-9]{{1,5}}))?(?P<path>/[!-~]+)")
_SCP: Final = re.compile(rf"(?!(?:file|https?|ssh|git):){_USER}{_HOST}:(?P<path>[A-Za-z0-9._~/+][!-~]*)")
_FILE: Final = re.compile(r"(?P<scheme>file)://(?P<path>/[!-~]+)")
_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_REF_REFUSED: Final = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//")
_WRITE: Final = "write https://HOST/PATH, ssh://USER@HOST/PATH or USER@HOST:PATH"


@dataclass(frozen=True, slots=True)
class GitAddress:
    """A repository's address: `url` as git is given it, and its parts. `port` None: the scheme's own; `host` as in
    the address, "" for file; `user` only for ssh.
    """

    url: str
    scheme: Scheme
    host: str = ""
    port: int | None = None
    user: str = ""
    path: str = ""

    @property
    def origin(self) -> str:
        """Scheme, host and port: what a login is for."""
        return f"{self.scheme}://{self.host}" + ("" if self.port is None else f":{self.port}")


def parse_git_address(value: object) -> GitAddress:
    """Take an address apart; raises `Wrong` for what is none, and for what must never reach git."""
    text = text_of(value)
    if "://" in text:
        _check_scheme(text)
        _check_no_login(text)
        found = _WEB.fullmatch(text) or _SSH.fullmatch(text) or _FILE.fullmatch(text)
    else:
        found = _SCP.fullmatch(text)
    if found is None or len(text) > _LONGEST or "\\" in text:
        raise Wrong("is not the address of a repository", _WRITE)
    parts = found.groupdict()
    scheme, path, host = parts.get("scheme") or "ssh", parts["path"], parts.get("host") or ""
    if scheme in ("ssh", "file") and "%" in path:
        raise Wrong("has a % in its path", "write the path as it is, without %-escapes")
    if "#" in path or "?" in path:
        raise Wrong("has a query or fragment", "leave out what follows ? or #; branch, tag or commit go into ref")
    if host:
        _check_host(host, plain=scheme == "http")
    port = int(parts["port"]) if parts.get("port") else None
    if port is not None and not 0 < port < 65536:
        raise Wrong("has a port that is none", "write a port from 1 to 65535")
    known = next(name for name in get_args(Scheme) if name == scheme)
    return GitAddress(text, known, host, port, parts.get("user") or "", path)


def _check_scheme(text: str) -> None:
    if (scheme := text.partition("://")[0]) not in get_args(Scheme):
        raise Wrong(f"has the scheme {scheme[:20]!r}, which is not used", _WRITE)


def _check_no_login(text: str) -> None:
    authority = text.partition("://")[2].partition("/")[0]
    if "@" in authority and (":" in authority.rpartition("@")[0] or not text.startswith("ssh:")):
        raise Wrong("has a login in it", "put the login into a Secret and name it under auth")


def _check_host(host: str, *, plain: bool) -> None:
    bare = host.strip("[]").lower()
    if plain and not is_loopback(bare):
        raise Wrong("is plain http, which is for loopback only", "write https://, or ssh://")
    try:
        check_address(bare, plain=plain)
    except Denied:
        raise Wrong("is a link-local address, where no repository is", _WRITE) from None


def parse_git_url(value: object) -> str:
    """An address that `parse_git_address` takes, as written."""
    return parse_git_address(value).url


def parse_ref_name(value: object) -> str:
    """A branch or tag by the rules of `git check-ref-format` (those for `refs/heads/NAME`), as written."""
    text = text_of(value)
    parts = text.split("/")
    if (
        not text
        or len(text.encode("utf-8", "surrogatepass")) > 255
        or text.startswith("-")
        or text == "@"
        or _REF_REFUSED.search(text)
        or text.endswith(".")
        or not text.isprintable()
        or any(not part or part.startswith(".") or part.endswith(".lock") for part in parts)
    ):
        raise Wrong("is not the name of a branch or tag", "write a name that git takes, such as main or v1.2")
    return text


def parse_commit(value: object) -> str:
    """A commit's full id, 40 hex digits."""
    if not _COMMIT.fullmatch(text := text_of(value)):
        raise Wrong("is not a commit's full id", "write all 40 hex digits, as git rev-parse prints them")
    return text


GitUrl = Annotated[str, *read_by(parse_git_url, {"examples": ["https://git.example.org/edge/nodes.git"]})]
GitRefName = Annotated[str, *read_by(parse_ref_name, {"examples": ["main", "v1.2"]})]
GitCommit = Annotated[str, *read_by(parse_commit, {"pattern": "^[0-9a-f]{40}$"})]
