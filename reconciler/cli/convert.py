"""`reconciler convert`: what people bring, as manifests."""

from __future__ import annotations

import click

FORMATS = ("pod", "compose", "containerd-labels")


@click.command()
@click.argument("file")
@click.option("--from", "source", type=click.Choice(FORMATS), required=True, help="What FILE is.")
@click.option("--report", type=click.Choice(["table", "json"]), default="table", help="How each key is told [table].")
@click.option("--strict", is_flag=True, help="Exit with 1 when anything is dropped.")
def command(file: str, source: str, report: str, strict: bool) -> int:
    """Make manifests of Kubernetes' Pods, of a compose file, or of containerd's containers (ctr containers info).

    The manifests go to stdout, what became of each key to stderr. FILE may be - for stdin.
    Exit code 0; 1: it cannot be used (nothing is printed), or --strict and something was dropped.

    \b
    Examples:
      reconciler convert --from pod web.yaml > manifests/web.yaml
      reconciler convert --from compose compose.yaml --report json > web.yaml 2> report.json
      ctr containers info web | reconciler convert --from containerd-labels -
    """
    from reconciler.cli.converting import convert_file

    return convert_file(file, source, report, strict=strict)
