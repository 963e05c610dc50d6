"""One run of `lgrs`: options and environment to savers, and what is printed.

What is asked for goes to stdout, as text or, with `--json`, as one object a line; notices, progress and errors to stderr.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import click
from langgraph.checkpoint.serde.base import SerializerProtocol
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from .. import (
    CheckpointCorruptError,
    CheckpointerError,
    CheckpointLostError,
    CheckpointNotFoundError,
    EmbeddedServer,
    EmbeddedServerError,
    EncryptionKeyError,
    IntegrityKeyError,
    InvalidConfigError,
    LayoutError,
    RedisSaver,
    SerializationError,
    ServerRefusedError,
    ServerUnavailableError,
    ThreadNotFoundError,
    environment,
)
from ..inspection.structural import StructuralSerializer
from ..inspection.values import as_json, clean

FINE, ERROR, USAGE, FINDINGS, NOT_FOUND, UNREACHABLE, REFUSED, INTERRUPTED = 0, 1, 2, 3, 4, 10, 11, 130

EXIT_CODES = {
    FINE: "fine",
    ERROR: "an error: damaged or lost data, a wrong key, a thread that exists already",
    USAGE: "the command line is wrong",
    FINDINGS: "findings: `why`: a thread failed or died; `verify`, `doctor`: a problem; or a change waits for `--yes`",
    NOT_FOUND: "there is no such thread, checkpoint, tag or channel",
    UNREACHABLE: "the server cannot be reached",
    REFUSED: "the server refused: password, rights, read-only, memory",
    INTERRUPTED: "interrupted by Ctrl-C",
}

PIPE_WIDTH = 160
"""Columns of output that is no terminal, unless COLUMNS says otherwise."""


@dataclass(slots=True)
class Settings:
    """Options of all commands. None: not given."""

    url: str | None = None
    prefix: str | None = None
    embedded: str | None = None
    as_json: bool = False


@dataclass
class Session:
    """What a command needs: a saver that looks, one that steers, and where to print."""

    settings: Settings = field(default_factory=Settings)
    command: str = ""
    exit_code: int = FINE
    _open: ExitStack = field(default_factory=ExitStack)
    _savers: dict[bool, RedisSaver] = field(default_factory=dict)
    _server: EmbeddedServer | None = None

    # --- savers ---

    def looking(self, **options: Any) -> RedisSaver:
        """A saver that changes nothing."""
        if options:
            return self._open.enter_context(self.saver(read_only=True, **options))
        return self._kept(True)

    def steering(self) -> RedisSaver:
        """A saver that writes, and leaves the expiry of threads as it is."""
        return self._kept(False)

    def _kept(self, read_only: bool) -> RedisSaver:
        if read_only not in self._savers:
            self._savers[read_only] = self._open.enter_context(self.saver(read_only=read_only))
        return self._savers[read_only]

    def saver(self, *, read_only: bool, **options: Any) -> RedisSaver:
        """A new saver, with structural values unless a `serde` is given."""
        try:
            return RedisSaver(
                self.url(),
                prefix=self.settings.prefix or environment.value_of("LGRS_PREFIX") or "lgrs",
                ttl="keep",
                read_only=read_only,
                **({**keys(), "serde": serializer()} | options),
            )
        except (ValueError, TypeError) as error:
            if isinstance(error, CheckpointerError):
                raise
            raise click.UsageError(str(error)) from error

    def url(self) -> str:
        if self.settings.embedded is not None:
            if self._server is None:
                if not Path(self.settings.embedded).is_dir():
                    raise click.UsageError(
                        f"--embedded {self.settings.embedded}: there is no such directory with data of a server"
                    )
                self._server = self._open.enter_context(EmbeddedServer.start(self.settings.embedded))
            return self._server.url
        return self.settings.url or environment.value_of("LGRS_URL") or "redis://localhost:6379/0"

    def close(self) -> None:
        self._savers.clear()
        self._server = None
        self._open.close()

    # --- output ---

    @property
    def as_json(self) -> bool:
        return self.settings.as_json

    @property
    def out(self) -> Console:
        return _console(stderr=False)

    def emit(self, record: Mapping[str, Any]) -> None:
        """One object of `--json`."""
        with _pipe():
            sys.stdout.write(as_json(record) + "\n")

    def flush(self) -> None:
        """Lets whoever reads the output have it now."""
        with _pipe():
            sys.stdout.flush()

    def say(self, text: str | Text = "", style: str = "") -> None:
        """A line of what was asked for."""
        self.out.print(text if isinstance(text, Text) else Text(clean(text), style=style), soft_wrap=False)

    def tell(self, text: str) -> None:
        """A notice, on stderr."""
        _console(stderr=True).print(Text(clean(text)), soft_wrap=True)

    def next(self, command: str, why: str = "") -> None:
        """The command that goes on from a finding."""
        if not self.as_json:
            self.tell(f"next: {self.again(command)}" + (f"   ({why})" if why else ""))

    def again(self, command: str) -> str:
        """A command as it is typed with the options of this one."""
        given = []
        if self.settings.embedded is not None:
            given.append(f"--embedded {shell_word(self.settings.embedded)}")
        if self.settings.url is not None:
            given.append(f"-u {shell_word(self.settings.url)}")
        if self.settings.prefix is not None:
            given.append(f"--prefix {shell_word(self.settings.prefix)}")
        return " ".join(["lgrs", *given, command])

    @contextlib.contextmanager
    def progress(self, what: str, total: int | None) -> Iterator[Callable[..., None]]:
        """A bar on stderr: call what it gives with how much is done, and of how much. Nothing without a terminal."""
        if not sys.stderr.isatty():
            yield lambda done, of=None: None
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=_console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda done, of=total: bar.update(task, completed=done, total=of)

    # --- changes ---

    def may_change(self, what: str, *, yes: bool, dry_run: bool) -> bool:
        """Whether a change that removes something goes on: by `--yes`, or by a person at a terminal."""
        if dry_run:
            self.tell(f"Dry run: nothing was changed. {what}")
            return False
        if yes:
            return True
        if sys.stdin.isatty() and sys.stderr.isatty() and not self.as_json:
            return click.confirm(f"{clean(what)} Go on?", err=True)
        self.exit_code = FINDINGS
        self.tell(f"Nothing was changed, since this is no terminal and --yes was not given. {what}")
        return False


@contextlib.contextmanager
def _pipe() -> Iterator[None]:
    """Whoever reads the output may have enough, as head has: then the command ends, and that is no error."""
    try:
        yield
    except BrokenPipeError:
        drop_output()
        raise click.exceptions.Exit(FINE) from None


def drop_output() -> None:
    """What is still to be written goes nowhere, so that ending the process does not fail on it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        drop_output()
        raise click.exceptions.Exit(FINE)


def _console(*, stderr: bool) -> Console:
    stream = sys.stderr if stderr else sys.stdout
    terminal = bool(getattr(stream, "isatty", lambda: False)())
    width = None if terminal or os.environ.get("COLUMNS") else PIPE_WIDTH
    return _Console(file=stream, width=width, highlight=False, markup=False, emoji=False, soft_wrap=False, safe_box=True)


def shell_word(text: str) -> str:
    """Text as one word of a shell."""
    return text if re.fullmatch(r"[\w@%+=:,./-]+", text) else "'" + text.replace("'", "'\"'\"'") + "'"


# --- secrets ---


def keys() -> dict[str, Any]:
    """Options of a saver that say how what it stores is signed and encrypted."""
    return {
        "integrity_key": environment.value_of("LGRS_INTEGRITY_KEY_FILE"),
        "accept_unkeyed": environment.value_of("LGRS_ACCEPT_UNKEYED") or False,
        "encryption_key": environment.value_of("LGRS_ENCRYPTION_KEY_FILE"),
        "decrypt_only": environment.value_of("LGRS_DECRYPT_ONLY") or False,
        "name_key": environment.value_of("LGRS_NAME_KEY_FILE"),
        "freshness": environment.value_of("LGRS_FRESHNESS") or False,
    }


def passphrase() -> bytes | None:
    """That of archives."""
    found: bytes | None = environment.value_of("LGRS_PASSPHRASE_FILE")
    return found


def serializer(inner: SerializerProtocol | None = None) -> SerializerProtocol:
    """Structural values, or those of `inner`; behind LangGraph's encryption if LGRS_SERDE_KEY_FILE names a key."""
    return environment.encrypted(StructuralSerializer() if inner is None else inner)


# --- options ---

if TYPE_CHECKING:
    _Type = click.ParamType[Any]
else:
    _Type = click.ParamType  # generic in newer releases only


class Duration(_Type):
    """90s, 15m, 12h, 7d, 2w."""

    name = "duration"
    units: ClassVar = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        if isinstance(value, timedelta):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw])", str(value))
        if found is None:
            self.fail(f"{value!r} is no duration; write 90s, 15m, 12h, 7d or 2w", param, ctx)
        try:
            return timedelta(seconds=float(found[1]) * self.units[found[2]])
        except OverflowError:
            self.fail(f"{value!r} is too long", param, ctx)


class Metadata(_Type):
    """key=value: a number and true or false as such, all else as text; "..." is always text."""

    name = "key=value"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        if isinstance(value, tuple):
            return value
        key, equals, text = str(value).partition("=")
        if not equals or not key:
            self.fail(f"{value!r} is not key=value", param, ctx)
        if text in ("true", "false"):
            return key, text == "true"
        for kind in (int, float):
            with contextlib.suppress(ValueError):
                return key, kind(text)
        return key, text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text


# --- errors ---


def report(session: Session, error: BaseException) -> int:
    """Says what went wrong, on stderr, and gives the exit code."""
    code, near, following = classify(error)
    text = clean(str(error))
    if session.as_json:
        sys.stderr.write(as_json({"error": type(error).__name__, "message": text, "near": near, "exit": code}) + "\n")
        return code
    session.tell(f"lgrs: {text}")
    if near:
        session.tell("did you mean: " + ", ".join(near))
    if following:
        session.tell(following)
    return code


def classify(error: BaseException) -> tuple[int, list[str], str]:
    """(exit code, names that are near, what to do)"""
    near = list(getattr(error, "near", ()))
    if isinstance(error, ThreadNotFoundError | CheckpointNotFoundError):
        return NOT_FOUND, near, ""
    if isinstance(error, ServerUnavailableError | EmbeddedServerError):
        return UNREACHABLE, near, "Which server is asked stands in -u, LGRS_URL or --embedded."
    if isinstance(error, ServerRefusedError):
        return REFUSED, near, "`lgrs doctor` says which rights are missing."
    if isinstance(error, InvalidConfigError):
        return USAGE, near, ""
    if isinstance(error, IntegrityKeyError):
        return ERROR, near, "The file that LGRS_INTEGRITY_KEY_FILE names must hold the key that signed these records."
    if isinstance(error, EncryptionKeyError):
        return ERROR, near, "The file that LGRS_ENCRYPTION_KEY_FILE names must hold the key that encrypted this."
    if isinstance(error, LayoutError):
        return ERROR, near, "A prefix with a name_key needs LGRS_NAME_KEY_FILE."
    if isinstance(error, CheckpointCorruptError | CheckpointLostError):
        return ERROR, near, "`lgrs verify THREAD` says what of it is damaged; `lgrs history THREAD` has the steps before."
    if isinstance(error, SerializationError) and "LGRS_SERDE_KEY_FILE" not in str(error):
        return ERROR, near, "If values are encrypted, LGRS_SERDE_KEY_FILE must name the file with their key."
    return ERROR, near, ""


def fail(message: str, near: Iterable[str] = ()) -> NoReturn:
    """Ends the command with exit code 4."""
    error = CheckpointNotFoundError(message)
    error.near = list(near)  # type: ignore[attr-defined]
    raise error
