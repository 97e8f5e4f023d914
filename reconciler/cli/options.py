"""Types of options that several commands share."""

from __future__ import annotations

from typing import Final

import click


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
