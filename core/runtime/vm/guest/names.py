"""What stands for the standard library's `typing` in a guest: the names that our files there take from it.

They stand in annotations, which nothing evaluates; the real one costs an emulated machine's start 60 ms.
"""

from __future__ import annotations


class _Name:
    """A name that means something to a type checker only."""

    def __getitem__(self, of: object) -> _Name:
        return self


Any = _Name()
Final = _Name()
