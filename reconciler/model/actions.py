"""What hands can do, as values: a closed union. Adding one breaks the type check of every `match`, not production.

Rules of this file: an action names what to do and to what, never how; it carries no secret; doing it twice is harmless.
`phase` is the word a person reads when it fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any, ClassVar

from core.values import dataclass
from reconciler.model.identity import Key
from reconciler.model.kinds.quantities import Owner
from reconciler.model.objects import Object


@dataclass(frozen=True, slots=True)
class Remember:
    """Merge `changes` into the object's record, durably, before what follows; an event tells people why (`reason`,
    `message`), as a warning when it is one.
    """

    phase: ClassVar[str] = "recording"
    key: Key
    changes: Mapping[str, Any]
    reason: str = ""
    message: str = ""
    warning: bool = False


@dataclass(frozen=True, slots=True)
class EnsureOwned:
    """Create `object` with `owner` among its owners, or adopt the one that is there and bring its spec in line."""

    phase: ClassVar[str] = "recording"
    owner: Key
    object: Object


@dataclass(frozen=True, slots=True)
class Disown:
    """Take `owner` off the owners of `key`; with no owner left it begins to be deleted."""

    phase: ClassVar[str] = "recording"
    key: Key
    owner: Key


@dataclass(frozen=True, slots=True)
class Release:
    """The controller is done with a dying object: drop its finalizer; it vanishes, and what only it owned begins to."""

    phase: ClassVar[str] = "removing"
    key: Key


@dataclass(frozen=True, slots=True)
class PullImage:
    """Fetch (from a registry or an archive), verify and unpack an image, and remember what it is."""

    phase: ClassVar[str] = "fetching"
    key: Key
    ref: str
    platform: str
    driver: str
    secret: str
    """The name of the Secret with the login, or ""."""
    local_only: bool = False
    anew: bool = False
    """Whether the registry is asked what the name means even where something of that name is held."""
    archive: str = ""
    """Where it comes from instead of a registry: an archive's path, `|`, and what tells its bytes from others."""


@dataclass(frozen=True, slots=True)
class CheckImage:
    """Ask the registry what an image's tag means now, and remember the answer, or that there is none."""

    phase: ClassVar[str] = "checking"
    key: Key
    ref: str
    secret: str


@dataclass(frozen=True, slots=True)
class ForgetImage:
    """Remove the blobs that only this image needs."""

    phase: ClassVar[str] = "removing"
    key: Key


@dataclass(frozen=True, slots=True)
class RemoveChain:
    """Remove a committed snapshot and those of its parents that nothing else rests on or names."""

    phase: ClassVar[str] = "removing"
    key: Key
    driver: str
    chain: str


@dataclass(frozen=True, slots=True)
class MakeSandbox:
    """Create or adopt a sandbox and start it."""

    phase: ClassVar[str] = "sandbox"
    key: Key
    id: str
    spec: Mapping[str, Any] = field(hash=False)


@dataclass(frozen=True, slots=True)
class RemoveSandbox:
    """Remove every trace of a sandbox."""

    phase: ClassVar[str] = "removing"
    id: str


@dataclass(frozen=True, slots=True)
class PrepareTask:
    """Make an attempt's root, look up its user and command in it, write its bundle. Nothing runs yet."""

    phase: ClassVar[str] = "preparing"
    key: Key
    id: str
    spec: Mapping[str, Any] = field(hash=False)
    image: Mapping[str, Any] = field(hash=False)
    """The image's record: chain, driver, config."""
    sandbox: str = ""


@dataclass(frozen=True, slots=True)
class CreateTask:
    """Let the runtime make it: namespaces, cgroup, first process waiting."""

    phase: ClassVar[str] = "creating"
    id: str


@dataclass(frozen=True, slots=True)
class StartTask:
    """Let its own program begin."""

    phase: ClassVar[str] = "starting"
    key: Key
    id: str


@dataclass(frozen=True, slots=True)
class ResumeTask:
    """Let it go on: something has frozen it, and nobody who wants that says so here."""

    phase: ClassVar[str] = "resuming"
    key: Key
    id: str


@dataclass(frozen=True, slots=True)
class LayRoot:
    """Make the root of an attempt that goes on where another stopped: the image's files, and what that one wrote."""

    phase: ClassVar[str] = "restoring"
    key: Key
    id: str
    image: Mapping[str, Any] = field(hash=False)
    checkpoint: str = ""
    """The name of the checkpoint among those that were taken in."""


@dataclass(frozen=True, slots=True)
class RestoreTask:
    """Let the runtime take an attempt up from a checkpoint, in place of making and starting it."""

    phase: ClassVar[str] = "restoring"
    key: Key
    id: str
    checkpoint: str


@dataclass(frozen=True, slots=True)
class RunHook:
    """Begin to run a command in it, `postStart` or `preStop`; how it ends is seen later."""

    phase: ClassVar[str] = "hooking"
    key: Key
    id: str
    role: str
    args: tuple[str, ...]
    timeout: float


@dataclass(frozen=True, slots=True)
class SignalTask:
    """Ask it to end (`signal` a number); `everyone`: all its processes."""

    phase: ClassVar[str] = "stopping"
    key: Key
    id: str
    signal: int
    everyone: bool = False


@dataclass(frozen=True, slots=True)
class UpdateTask:
    """Change its limits in place."""

    phase: ClassVar[str] = "updating"
    id: str
    resources: Mapping[str, Any] = field(hash=False)


@dataclass(frozen=True, slots=True)
class DeleteTask:
    """Remove every trace of an attempt but, with `keep_log`, its log."""

    phase: ClassVar[str] = "removing"
    key: Key
    id: str
    driver: str
    keep_log: bool = True


@dataclass(frozen=True, slots=True)
class RemoveLogs:
    """Remove all logs of a container."""

    phase: ClassVar[str] = "removing"
    name: str


@dataclass(frozen=True, slots=True)
class MakeVolume:
    """Make a volume's folder, with the owner and mode asked for."""

    phase: ClassVar[str] = "volume"
    name: str
    owner: Owner | None
    mode: int | None


@dataclass(frozen=True, slots=True)
class RemoveVolume:
    """Remove a volume's folder with all in it."""

    phase: ClassVar[str] = "removing"
    name: str


@dataclass(frozen=True, slots=True)
class FetchSource:
    """Bring the revision that a Source asks for, and remember which it is. `sync`: the request that it answers;
    `moves`: how often its folder was seen to change.
    """

    phase: ClassVar[str] = "fetching"
    key: Key
    asks_for: str
    sync: str = ""
    moves: int = 0


@dataclass(frozen=True, slots=True)
class LoadRevision:
    """Read and check all manifests of a revision, and keep what they came to in memory. Nothing is changed."""

    phase: ClassVar[str] = "loading"
    key: Key
    revision: str
    with_: str


@dataclass(frozen=True, slots=True)
class ApplyRevision:
    """Make the store want what was loaded of a revision, in one commit with what is `removed`, or not at all."""

    phase: ClassVar[str] = "applying"
    key: Key
    revision: str
    with_: str
    removed: frozenset[Key]


@dataclass(frozen=True, slots=True)
class AskLocal:
    """Merge `changes` into what a person at the node asked of the object: what is over, or was answered, goes."""

    phase: ClassVar[str] = "recording"
    key: Key
    changes: Mapping[str, Any] = field(hash=False)


@dataclass(frozen=True, slots=True)
class LetGoOfMembers:
    """Remove what a Source manages, as it goes itself; `keep`: leave it there, for anybody to take over."""

    phase: ClassVar[str] = "removing"
    key: Key
    keep: bool


@dataclass(frozen=True, slots=True)
class ForgetSource:
    """Remove what was fetched for a Source, and what its revisions kept."""

    phase: ClassVar[str] = "removing"
    key: Key


Action = (
    Remember
    | EnsureOwned
    | Disown
    | Release
    | PullImage
    | CheckImage
    | ForgetImage
    | RemoveChain
    | MakeSandbox
    | RemoveSandbox
    | PrepareTask
    | CreateTask
    | StartTask
    | ResumeTask
    | LayRoot
    | RestoreTask
    | RunHook
    | SignalTask
    | UpdateTask
    | DeleteTask
    | RemoveLogs
    | MakeVolume
    | RemoveVolume
    | FetchSource
    | LoadRevision
    | ApplyRevision
    | AskLocal
    | LetGoOfMembers
    | ForgetSource
)


@dataclass(frozen=True, slots=True)
class Await:
    """Something that must happen first: at the latest looked at again after `seconds` (None: only its event helps).

    `stalled`: only a person or the outside can make it happen.
    """

    reason: str
    message: str
    seconds: float | None = None
    stalled: bool = False
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """Actions, in order, then waits. Converged means neither; there is no other definition of it."""

    actions: tuple[Action, ...] = ()
    waits: tuple[Await, ...] = ()
    cause: str = ""
    """Why, in a few words, for `diff` and events: `spec.image changed`."""
    again: float | None = None
    """Seconds after which to look again even when converged (None: nothing is due by itself)."""

    @property
    def converged(self) -> bool:
        """Whether the node is what it should be."""
        return not self.actions and not self.waits
