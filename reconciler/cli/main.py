"""`reconciler`: the commands, each imported when it is called; every error in one grammar, with its exit code.

Rules of this file: it imports nothing that `get` does not need. A command returns its exit code. What a person sees of
an error is one line and a hint; what nobody foresaw is written to a file that the line names.
"""

from __future__ import annotations

import gc
import importlib
import os
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Final, NamedTuple

import click

from core.errors import AgentError, from_os_error
from reconciler.cli.context import Node
from reconciler.cli.terminal import complain, complain_in_words, tell

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

USAGE: Final = 2
CRASHED: Final = 70
INTERRUPTED: Final = 130


class Entry(NamedTuple):
    """Where a command lives, and its line in the list."""

    module: str
    help: str


COMMANDS: Final = {
    "apply": Entry("apply", "Make the node what the manifests say, and wait until it is."),
    "diff": Entry("diff", "Show what apply would do, and what it would cost."),
    "get": Entry("get", "List objects, or print one."),
    "describe": Entry("describe", "All about one object: conditions, waits, events."),
    "why": Entry("why", "Who asked for an object, what was done last, what comes next."),
    "delete": Entry("delete", "Remove objects, and wait until they are gone."),
    "restart": Entry("restart", "Run a container anew, once."),
    "checkpoint": Entry("checkpoint", "Write a running container down, to go on from there later."),
    "stop": Entry("stop", "Stop a container until start, or for a while."),
    "start": Entry("start", "Start a container that was stopped by hand."),
    "logs": Entry("logs", "Print what a container wrote."),
    "cp": Entry("copying", "Copy files out of a container, or into one."),
    "exec": Entry("execute", "Run a command in a running container."),
    "events": Entry("events", "What happened, newest last."),
    "status": Entry("status", "The node on one screen."),
    "top": Entry("top", "What each running container uses of the node."),
    "wait": Entry("waiting", "Wait until an object is ready, deleted or exited."),
    "agent": Entry("agent", "Run the node's agent in the foreground."),
    "runtime": Entry("runtimes", "The runtimes of this node, and what each can do."),
    "source": Entry("source", "Where desired state comes from: add, sync, suspend, resume, list."),
    "history": Entry("history", "Which revisions were applied, and how it went."),
    "rollback": Entry("rollback", "Go back to an older revision of a source, and stay there."),
    "hold": Entry("hold", "Apply no new revision on this node for a while."),
    "image": Entry("image", "Images by hand: pull, import, export, tag, list, remove."),
    "content": Entry("content", "The blobs on this node: list, check, repair."),
    "gc": Entry("collect", "Remove the blobs and snapshots that no object needs."),
    "doctor": Entry("doctor", "What this node can do, and what to install for the rest."),
    "graph": Entry("graph", "Who reads and writes what; or the objects around one."),
    "config": Entry("config", "The agent's own configuration: show, validate, default, schema, migrate."),
    "convert": Entry("convert", "Make manifests of Pods, of a compose file, or of containerd's containers."),
    "schema": Entry("schema", "The JSON Schema of a kind, for editors."),
    "completion": Entry("completion", "A script that completes our words in bash, zsh or fish."),
    "version": Entry("version", "Print the version."),
}

EPILOG: Final = """\b
Begin with:
  reconciler doctor
  reconciler apply -f web.yaml
  reconciler get all

\b
Completion for bash (zsh and fish alike):
  source <(reconciler completion bash)
"""


class Commands(click.Group):
    """A group whose commands are looked up in `COMMANDS`."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module, whose `command` it is."""
        if (entry := COMMANDS.get(cmd_name)) is None:
            return None
        module = importlib.import_module(f"reconciler.cli.{entry.module}")
        command: click.Command = module.command
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The names from the table, without importing them, and our options."""
        from click.shell_completion import CompletionItem

        found = [CompletionItem(name, help=one.help) for name, one in COMMANDS.items() if name.startswith(incomplete)]
        return found + click.Command.shell_complete(self, ctx, incomplete)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does it, but say what was probably meant."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            close = get_close_matches(args[0], COMMANDS, n=1)
            meant = f"Did you mean {close[0]}?" if close else f"Commands are: {', '.join(COMMANDS)}."
            raise click.UsageError(f"There is no command {args[0]!r}. {meant}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands from the table, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in COMMANDS.items()])


@click.group(cls=Commands, epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--root", envvar="RECONCILER_ROOT", metavar="DIR", help="What must last [/var/lib/reconciler].")
@click.option("--state", envvar="RECONCILER_STATE", metavar="DIR", help="What may go at reboot [/run/reconciler].")
@click.option(
    "--config", envvar="RECONCILER_CONFIG", metavar="FILE", help="The configuration [/etc/reconciler/config.yaml]."
)
@click.pass_context
def cli(ctx: click.Context, root: str | None, state: str | None, config: str | None) -> None:
    """One agent per node: YAML manifests in, running containers out."""
    ctx.obj = Node(root or None, state or None, config or None)


def run(args: list[str] | None = None) -> int:
    """Run the command line and return its exit code; what was foreseen is said on stderr."""
    try:
        code: int | None = cli.main(args=args, prog_name="reconciler", standalone_mode=False)
        return code or 0
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "reconciler"
        complain_in_words(f"usage: {error.format_message()}", [f"See: {command} --help"])
        return USAGE
    except click.ClickException as error:
        complain_in_words(f"invalid: {error.format_message()}", [])
        return 1
    except (click.Abort, KeyboardInterrupt):
        tell("interrupted")
        return INTERRUPTED
    except AgentError as error:
        complain(error)
        return 1
    except OSError as error:
        complain(from_os_error(error, str(error.filename or "the system")))
        return 1


def report_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The last resort: write what only a developer understands to a file, say one line, end at once."""
    import platform
    import tempfile
    import traceback

    from reconciler import __version__

    with tempfile.NamedTemporaryFile("w", prefix="reconciler-crash-", suffix=".txt", delete=False) as report:
        report.write(f"reconciler {__version__}, Python {platform.python_version()}, {platform.platform()}\n\n")
        report.writelines(traceback.format_exception(kind, error, trace))
    what = " ".join(str(error).split())[:200]
    complain_in_words(
        f"failed: {kind.__name__}: {what}" if what else f"failed: {kind.__name__}",
        [f"This is a fault of the program. The report is in {report.name}: please file it."],
    )
    sys.stdout.flush()
    os._exit(CRASHED)  # threads of an engine in this process must not keep it alive


def main() -> None:
    """The console script."""
    # Else pydantic looks through every package of the environment for plugins, and runs what it finds, here as root.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    sys.excepthook = report_crash
    gc.set_threshold(
        50_000, 20, 20
    )  # a command's objects are few and live to its end; looking for cycles costs it 30 ms
    sys.exit(run())


if __name__ == "__main__":
    main()
