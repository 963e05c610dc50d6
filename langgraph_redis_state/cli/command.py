"""What all commands of `lgrs` have in common: options that may stand before or behind the command, and what `--json` gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar
from urllib.parse import urlsplit

import click

from .session import Session

F = TypeVar("F", bound=Callable[..., Any])

OPTIONS: tuple[tuple[str, tuple[str, ...], dict[str, Any]], ...] = (
    (
        "url",
        ("-u", "--url"),
        {"metavar": "URL", "help": "The server, as RedisSaver takes it; or LGRS_URL, where a password may stand."},
    ),
    ("prefix", ("--prefix",), {"metavar": "TEXT", "help": "What all keys begin with; or LGRS_PREFIX. Default: lgrs."}),
    ("embedded", ("--embedded",), {"metavar": "PATH", "help": "The data of an embedded server, instead of a URL."}),
    ("as_json", ("--json",), {"is_flag": True, "default": None, "help": "One JSON object a line."}),
)


def options(hidden: bool = False) -> Callable[[F], F]:
    """The options of every command. At a command they are hidden in its help: that of `lgrs` has them."""

    def stored(ctx: click.Context, param: click.Parameter, value: Any) -> None:
        if value is None:
            return
        if param.name == "url" and has_password(value):
            raise click.UsageError(
                "a password in -u can be seen by every user of this machine; put the URL into the environment variable LGRS_URL"
            )
        setattr(ctx.ensure_object(Session).settings, str(param.name), value)

    def decorated(function: F) -> F:
        for name, flags, settings in reversed(OPTIONS):
            function = click.option(*flags, name, expose_value=False, callback=stored, hidden=hidden, **settings)(function)
        return function

    return decorated


def has_password(url: str) -> bool:
    try:
        return "@" in url and ":" in (urlsplit(url).netloc.rpartition("@")[0])
    except ValueError:
        return False


FIELDS: dict[str, Mapping[str, str]] = {}
"""What `--json` gives, by command: fields with their meaning."""

COMMANDS: dict[str, click.Command] = {}


def command(name: str, fields: Mapping[str, str], **settings: Any) -> Callable[[Callable[..., None]], click.Command]:
    """Makes a function a command of `lgrs`. It gets the session first.

    Args:
        fields: what an object of its `--json` has, with what it means. Tests hold that.
    """

    def decorated(function: Callable[..., None]) -> click.Command:
        @wraps(function)
        def begin(*args: Any, **kwargs: Any) -> None:
            session = click.get_current_context().ensure_object(Session)
            session.command = name
            function(session, *args, **kwargs)

        given: Callable[..., Any] = options(hidden=True)(begin)
        making: Callable[[Callable[..., Any]], click.Command] = click.command(name, **settings)
        made = making(given)
        FIELDS[name], COMMANDS[name] = fields, made
        return made

    return decorated


def complete_thread(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """Threads whose id begins so, for the shell."""
    session = ctx.ensure_object(Session)
    try:
        thread, at, begun = incomplete.rpartition("@")
        if at:
            saver = session.looking()
            return [f"{thread}@{tag}" for tag in ("latest", *saver.tags(thread)) if tag.startswith(begun)]
        return [each.thread_id for each in session.looking().list_threads(prefix=incomplete or None, limit=50)]
    except Exception:  # noqa: BLE001 - a shell that completes has no place for errors
        return []
    finally:
        session.close()


def thread_argument(name: str = "thread", **settings: Any) -> Callable[[F], F]:
    shown = name.upper()
    if settings.get("nargs") == -1:
        shown = f"[{shown}]..."
    elif not settings.get("required", True):
        shown = f"[{shown}]"
    return click.argument(name, metavar=shown, shell_complete=complete_thread, **settings)
