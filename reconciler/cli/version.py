"""`reconciler version`."""

from __future__ import annotations

import click

from reconciler import __version__
from reconciler.cli.terminal import say


@click.command("version")
def command() -> None:
    """Print the version.

    \b
    Example:
      reconciler version
    """
    import platform

    say(f"reconciler {__version__} (Python {platform.python_version()}, {platform.system()} {platform.release()})")
