"""Several places for one image: each is asked in its order, and one that fails is passed over.

Rules of this file: a place is asked only for what it may be asked for. The last one's error says what to do; what each
of the others said stands beside it. A place that gave wrong bytes is not asked for them again in this pull, and one
that broke off goes to the back of the row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Self, TypeVar

from core.clock import Clock
from core.content.ingest import WrongBytes
from core.digest import Digest
from core.errors import AgentError, Denied
from core.transfer.auth import Login
from core.transfer.endpoints import Can, Endpoint, Ways
from core.transfer.incoming import Cancelled
from core.transfer.ports import CannotResume, Descriptor, Elsewhere
from core.transfer.reference import Reference
from core.transfer.registry import Registry

T = TypeVar("T")


class Mirrors:
    """A `Remote` over `places`: registries with what each may be asked for, the image's own registry mostly last."""

    def __init__(self, places: Sequence[tuple[Registry, frozenset[Can]]]) -> None:
        self._places = tuple(places)
        self._origin = places[-1][0].origin
        self._broke_off: dict[Registry, int] = {}
        self._wrong: set[tuple[Registry, Digest]] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for place, _ in self._places:
            place.__exit__(kind, error, trace)

    @property
    def image(self) -> str:
        """The image's full name."""
        return self._places[0][0].image

    @property
    def origin(self) -> str:
        """Who gave the image's manifest last, or would be asked last for it."""
        return self._origin

    def resolve(self) -> Descriptor:
        """As `Registry.resolve`, of the first place that may say what a name means and does."""
        return self._first(Can.RESOLVE, None, lambda place: place.resolve())

    def document(self, descriptor: Descriptor) -> bytes:
        """As `Registry.document`; of the first place that gives the right bytes."""

        def checked(place: Registry) -> bytes:
            data = place.document(descriptor)
            hasher = descriptor.digest.hasher()
            hasher.update(data)
            if hasher.hexdigest() != descriptor.digest.hex:
                raise WrongBytes(f"{place.origin} gives another document than {descriptor.digest}")
            self._origin = place.origin
            return data

        return self._first(Can.PULL, descriptor.digest, checked)

    def blob(self, descriptor: Descriptor, start: int = 0) -> Iterator[bytes]:
        """As `Registry.blob`; raises `Elsewhere` at the end of wrong bytes when another place is left to ask."""

        def begun(place: Registry) -> tuple[Registry, bytes, Iterator[bytes]]:
            pieces = place.blob(descriptor, start)
            return place, next(pieces, b""), pieces

        place, first, rest = self._first(Can.PULL, descriptor.digest, begun)
        hasher = descriptor.digest.hasher()
        try:
            for piece in _joined(first, rest):
                hasher.update(piece)
                yield piece
        except AgentError:
            self._broke_off[place] = self._broke_off.get(place, 0) + 1
            raise
        if start == 0 and hasher.hexdigest() != descriptor.digest.hex:
            self._wrong.add((place, descriptor.digest))
            if self._able(Can.PULL, descriptor.digest):
                raise Elsewhere(f"{place.origin} gives other bytes than {descriptor.digest}")

    def _able(self, can: Can, digest: Digest | None) -> list[Registry]:
        found = [place for place, able in self._places if can in able and (place, digest) not in self._wrong]
        return sorted(found, key=lambda place: self._broke_off.get(place, 0))

    def _first(self, can: Can, digest: Digest | None, ask: Callable[[Registry], T]) -> T:
        said: list[tuple[str, AgentError]] = []
        for place in self._able(can, digest):
            try:
                return ask(place)
            except Cancelled:
                raise
            except AgentError as error:
                if isinstance(error, WrongBytes) and digest is not None:
                    self._wrong.add((place, digest))
                said.append((place.origin, error))
        raise _all_said(self.image, can, said)


def _joined(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    if first:
        yield first
    yield from rest


def _all_said(image: str, can: Can, said: Sequence[tuple[str, AgentError]]) -> AgentError:
    """The last one's error, with what the others said before it; one that may go better later if there is such."""
    if not said:
        return Denied(f"{image}: no host may be asked to {can}", advice="Correct the capabilities in its hosts.toml.")
    resumable = all(isinstance(error, CannotResume) for _, error in said)
    telling = [entry for entry in said if resumable or not isinstance(entry[1], CannotResume)]
    _, last = telling[-1]
    if len(telling) > 1:
        last.message = "; ".join(f"{host}: {error.message}" for host, error in telling)[:1000]
        last.args = (last.message,)
    return last


def open_image(
    reference: Reference, places: Sequence[Endpoint], ways: Ways, logins: Callable[[Endpoint], Login], clock: Clock
) -> Registry | Mirrors:
    """The `Remote` of an image that may be asked for at `places`, to be used as a block.

    `logins` gives what looks up the credentials for a place: those for one are never sent to another.
    """
    made = [Registry(reference, logins(place), clock, endpoint=place, ways=ways) for place in places]
    if len(made) == 1:
        return made[0]
    return Mirrors([(registry, place.can) for registry, place in zip(made, places, strict=True)])
