"""What git's refusal means: its words to an error that says what to do. Pure.

git has one exit code for all that can go wrong (128), so that its own words, in the C locale, are all there is to tell
by. Rules of this file: the table is asked from its top; what a server says (`remote: …`) never decides what is wrong
here; nothing is repeated for people but one short printable line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import ClassVar, Final

from core.errors import (
    AgentError,
    Category,
    Corrupt,
    Denied,
    Failed,
    Invalid,
    NoSpace,
    NotFound,
    OverLimit,
    Retry,
    Unavailable,
    Unsupported,
)

_SHOWN: Final = 10


class Damaged(Corrupt):
    """The copy of the repository on this node is not what git wrote. It is thrown away and fetched anew."""


class Untrusted(AgentError):
    """The server's certificate or host key is not one that we know. It may be put right without us."""

    retry: ClassVar[Retry] = Retry.BACKOFF
    category: ClassVar[Category] = Category.DENIED


class Cut(Unavailable):
    """The server, or the way to it, went away in the middle."""


class NoSuchRef(NotFound):
    """The repository answers, and has no such branch or tag."""


_Make = Callable[[str, str], AgentError]


def over_limit(where: str, _: str) -> AgentError:
    """The repository, or one object of it, goes beyond what git may use here."""
    return OverLimit(
        f"{where} is larger than this node takes",
        advice="Make the repository smaller: manifests belong in one of their own, without large files.",
    )


def _no_space(_: str, words: str) -> AgentError:
    return NoSpace(f"the copy of the repository cannot be written: {words}")


def _certificate(where: str, words: str) -> AgentError:
    return Untrusted(
        f"{where}: the server's certificate is not accepted: {words}",
        advice="Name the authority that signed it as sources.git.ca, or as ca in the Secret.",
    )


def _host_key(where: str, _: str) -> AgentError:
    return Untrusted(
        f"{where}: the server's host key is not the one that is known",
        advice="If the key was changed on purpose, correct known_hosts; otherwise somebody is in between.",
    )


def _denied(where: str, words: str) -> AgentError:
    return Denied(
        f"{where}: the server does not let us in: {words}",
        advice="Check the Secret under auth: username and password or token for https, sshKey for ssh.",
    )


def _unreachable(where: str, words: str) -> AgentError:
    return Unavailable(f"{where} cannot be reached: {words}", advice="It is tried again; what runs goes on.")


def _redirected(where: str, words: str) -> AgentError:
    return Invalid(
        f"{where}: the server sends us to another address: {words}",
        advice="Write the address that it sends to; redirects are not followed, so that a login stays where it is for.",
    )


def _no_commit(where: str, _: str) -> AgentError:
    return NotFound(
        f"{where}: the server does not give this commit",
        advice="Check its id; or name a branch or tag, since some servers give no single commits.",
    )


def _no_repository(where: str, words: str) -> AgentError:
    return NotFound(
        f"{where} is no repository that we may read: {words}",
        advice="Check the address; to those without a login a private repository often looks the same as none.",
    )


def _sha256(where: str, _: str) -> AgentError:
    return Unsupported(
        f"{where} names its objects by SHA-256, which is not supported yet", advice="Use a SHA-1 repository."
    )


def _cut(where: str, words: str) -> AgentError:
    return Cut(f"{where} went away in the middle: {words}", advice="It is tried again; what runs goes on.")


def _damaged(where: str, words: str) -> AgentError:
    return Damaged(f"the copy of {where} on this node is damaged: {words}", advice="It is fetched anew by itself.")


_TABLE: Final[Sequence[tuple[re.Pattern[str], _Make]]] = [
    (re.compile(pattern), make)
    for pattern, make in (
        (r"died of signal (24|25)|File too large|[Oo]ut of memory|Cannot allocate memory|exceeds maximum", over_limit),
        (r"No space left on device|Disk quota exceeded|Read-only file system", _no_space),
        (r"certificate verification failed|SSL certificate problem|does not match target host name", _certificate),
        (r"SSL: no alternative certificate|certificate subject name", _certificate),
        (r"Host key verification failed|HOST IDENTIFICATION HAS CHANGED|host key is known", _host_key),
        (r"Authentication failed|could not read (Username|Password)|terminal prompts disabled", _denied),
        (r"Permission denied|returned error: 40[13]|Too many authentication|invalid format|dubious ownership", _denied),
        (r"returned error: 30\d|update url base from redirection", _redirected),
        (r"Could not resolve|Failed to connect|Connection refused|No route to host|Couldn't connect", _unreachable),
        (r"Network is unreachable|[Tt]imed out|kex_exchange_identification|returned error: (5\d\d|429)", _unreachable),
        (r"Operation too slow|Connection closed by|banner exchange|gnutls_handshake|SSL_connect", _unreachable),
        (r"not our ref|unadvertised object|no such remote ref", _no_commit),
        (r"mismatched algorithms|unknown object format|unsupported hash", _sha256),
        (r"repository '.*' not found|not appear to be a git repository|returned error: 404", _no_repository),
        (r"[Rr]epository not found|not valid: is this a git repository|No such file or directory", _no_repository),
        (r"not a git repository|bad object|is empty$|is corrupt|does not match index|a valid object", _damaged),
        (r"bad (config|signature|tree|ref)|inflate|unresolved deltas|unable to (read|find) |broken", _damaged),
        (r"missing (blob|tree|commit)|invalid (sha1|object|ref)|cannot lock ref|reference|packed-refs", _damaged),
        (r"git died of signal|early EOF|hung up|RPC failed|unexpected disconnect|index-pack|Empty reply", _cut),
        (r"Connection reset|bad line length|protocol error|expected flush|bad pack header|transfer closed", _cut),
    )
]
MISSING_REF: Final = re.compile(r"couldn't find remote ref|no such remote ref")


def refusal(where: str, stderr: str) -> AgentError:
    """The error for a command about the repository `where` that failed with these words; `Failed` for unknown ones."""
    own = "\n".join(line for line in stderr.splitlines() if not line.startswith("remote:"))
    for pattern, make in _TABLE:
        if pattern.search(own):
            return make(where, words(own))
    return Failed(f"{where}: git failed: {words(stderr)}")


def words(stderr: str) -> str:
    """The one line of git's words that says most: printable, at most 200 characters."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("fatal:", "error:", "ERROR:"))]
    ssh = [line for line in lines if re.search(r"^ssh:|Permission denied|Connection |Load key", line)]
    line = (ssh or telling or lines or ["no word"])[0]
    line = re.sub(r"^(fatal|error|ERROR):\s*(unable to access '[^']*': )?", "", line)
    return "".join(letter if letter.isprintable() else " " for letter in line)[:200]


def no_such_ref(where: str, what: str, others: Sequence[str]) -> NoSuchRef:
    """The repository has no `what` ("branch main"); `others` are such names that it has."""
    more = f" and {len(others) - _SHOWN} more" if len(others) > _SHOWN else ""
    return NoSuchRef(f"{where} has no {what}", advice=f"It has: {', '.join(others[:_SHOWN]) or 'none'}{more}.")


def empty(where: str) -> NoSuchRef:
    """The repository has no commit at all."""
    return NoSuchRef(f"{where} is empty", advice="Push a first commit to it; what runs goes on.")


def distrusted(where: str, verify_code: int) -> Untrusted | None:
    """What an own look at the certificate found (OpenSSL's X509_V_ERR_*); None: nothing that says more than git."""
    if verify_code == 9:
        return Untrusted(
            f"{where}: the server's certificate is not valid yet",
            advice="The clock of this node (or of the server) is wrong: set it, or wait until it is set by NTP.",
        )
    if verify_code == 10:
        return Untrusted(
            f"{where}: the server's certificate has expired",
            advice="Renew it on the server; or the clock of this node is ahead: look at `date`.",
        )
    if verify_code == 62 or verify_code == 64:
        return Untrusted(
            f"{where}: the server's certificate is for another name",
            advice="Write the name that the certificate has, or give the server one for this name.",
        )
    return None
