"""Types of options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from reconciler.cli import completing

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class Duration(click.ParamType[float]):
    """`250ms`, `10s`, `5m`, `1h30m` → seconds."""

    name = "duration"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it as manifests do; a usage error when it is none."""
        if isinstance(value, float):
            return value
        from reconciler.model.kinds.quantities import parse_duration

        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(f"{value!r} {error}: write a number with ms, s, m or h, such as 90s or 5m.", param, ctx)


DURATION: Final = Duration()


def files(text: str, *, required: bool = False) -> Callable[[Decorated], Decorated]:
    """`-f`: manifests by file or folder, or `-`; as often as wanted. It arrives as `paths`."""
    names = ("-f", "--file", "paths")
    complete = completing.files
    return click.option(*names, multiple=True, required=required, metavar="PATH", shell_complete=complete, help=text)
