"""`lgrs`: its commands together, completion for shells, and what happens to errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click
from click.shell_completion import get_completion_class

from .. import CheckpointerError, __version__
from . import look, move, serve, state, steer, upkeep
from .command import COMMANDS, command, options
from .session import ERROR, FINE, INTERRUPTED, USAGE, Session, drop_output, report

SECTIONS = {
    "Look": ("threads", "why", "history", "show", "messages", "writes", "diff", "tags", "stats", "watch", "serve"),
    "Steer": ("tag", "untag", "rollback", "copy", "ttl", "prune", "rm"),
    "Move": ("export", "import", "backup", "migrate"),
    "Upkeep": ("verify", "repair", "doctor", "completion"),
}

_MODULES = (look, move, serve, state, steer, upkeep)
"""Imported so that their commands are there."""


class Lgrs(click.Group):
    """A group whose help is in sections."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, names in SECTIONS.items():
            with formatter.section(title):
                rows = [(name, self.commands[name].get_short_help_str(80)) for name in names if name in self.commands]
                formatter.write_dl(rows)


@click.group(cls=Lgrs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "--version", prog_name="lgrs")
@options()
def lgrs() -> None:
    """Looks inside of the threads that langgraph-redis-state keeps, and steers them.

    THREAD is the id of a thread, or its beginning if only one begins so (not where something is changed). THREAD@CHECKPOINT
    is one of its checkpoints: @latest, @-2 (two steps up), @v12 (number 12), @TAG, or the beginning of an id. Looking
    changes nothing, no TTL either, and needs no right to write.

    Options of all commands may stand before or behind the command. `lgrs why THREAD` is where to begin.
    """


@command("completion", {})
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(session: Session, shell: str) -> None:
    """Prints what completes commands and threads in a shell: eval "$(lgrs completion bash)"."""
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(lgrs, {}, "lgrs", "_LGRS_COMPLETE").source())


for _name in (name for names in SECTIONS.values() for name in names):
    lgrs.add_command(COMMANDS[_name])


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs `lgrs`, and gives its exit code. Errors are told on stderr; none is raised."""
    session = Session()
    for stream in (sys.stdout, sys.stderr):  # a value holds any character, a terminal may not have it
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    try:
        try:
            if os.environ.get("_LGRS_COMPLETE"):
                lgrs.main(list(arguments) if arguments is not None else None, prog_name="lgrs", obj=session)
            answer = lgrs.main(
                list(arguments) if arguments is not None else None, prog_name="lgrs", obj=session, standalone_mode=False
            )
            code = answer if isinstance(answer, int) and answer else session.exit_code
            sys.stdout.flush()
            return code
        finally:
            session.close()
    except click.exceptions.Abort:
        return INTERRUPTED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # of the last flush
        drop_output()
        return FINE
    except click.ClickException as error:
        error.show()
        return USAGE if isinstance(error, click.UsageError) else ERROR
    except (CheckpointerError, ValueError) as error:
        return report(session, error)
