"""`reconciler exec`: a further process in a running container."""

from __future__ import annotations

import click

from core.errors import Denied, NotFound
from reconciler.cli import completing
from reconciler.cli.context import Node, container_key, pass_node
from reconciler.cli.terminal import complain

NOT_EXECUTABLE = 126
NOT_FOUND = 127


@click.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("-i", "--stdin", is_flag=True, help="Pass our stdin on.")
@click.option("-t", "--tty", is_flag=True, help="Give it a terminal.")
@click.option("-e", "--env", multiple=True, metavar="NAME=VALUE", help="One more variable; may be given again.")
@click.option("-u", "--user", default="", metavar="USER[:GROUP]", help="Another user than the container's.")
@click.option("-w", "--workdir", default="", metavar="PATH", help="Another working folder.")
@click.argument("container", shell_complete=completing.containers)
@click.argument("args", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- CMD…")
@pass_node
def command(
    node: Node,
    stdin: bool,
    tty: bool,
    env: tuple[str, ...],
    user: str,
    workdir: str,
    container: str,
    args: tuple[str, ...],
) -> int:
    """Run a command in a running container; its exit code is ours.

    \b
    Examples:
      reconciler exec -it web -- sh
      reconciler exec web -- cat /etc/hostname
    """
    from core.runtime.ports import ExecSpec
    from reconciler.wiring import check_command, runtime_of, user_in

    words = args[1:] if args[0] == "--" else args
    if not words:
        raise click.UsageError("Missing argument '-- CMD…'.")
    if bad := next((entry for entry in env if "=" not in entry[1:]), None):
        raise click.UsageError(f"{bad!r} is not NAME=VALUE.")
    key = container_key(container)
    node.wanted(key)
    store = node.store_to_write()
    shim, task = runtime_of(node.paths, store, key.name)
    process = ExecSpec(words, tty, stdin or tty, env, user_in(node.paths, task, user), workdir)
    try:
        check_command(node.paths, shim, task, process)
        return shim.exec(task, process)
    except (NotFound, Denied) as error:
        complain(error)
        return NOT_FOUND if isinstance(error, NotFound) else NOT_EXECUTABLE
