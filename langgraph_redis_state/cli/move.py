"""Commands that move threads: export, import, backup, migrate. None changes a thread that exists, nor what it reads from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

from .. import RedisSaver
from ..archive import ArchiveSaver, Progress, Report, export_threads, import_threads, verify_archive
from ..archive import backup as write_backup
from ..inspection import looking
from ..inspection.selecting import find_thread
from ..inspection.values import counted, plain
from ..migrate import Progress as MigrationProgress
from ..migrate import migrate as copy_threads
from ..migrate.specs import SPECS, opened
from .command import command, has_password, thread_argument
from .session import ERROR, Session, keys, passphrase, serializer

REPORT = {
    "ok": "whether all is where it should be",
    "threads": "threads that were written or imported",
    "checkpoints": "checkpoints of these",
    "unchanged": "threads of a backup that stand in its base",
    "existing": "threads that exist and were left alone (`--skip-existing`)",
    "bytes": "the size of the file that was written",
    "failures": "threads that could not be read or imported, and why",
    "problems": "what else is wrong",
}

file_argument = click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
thread_option = click.option("--thread", "threads", multiple=True, metavar="ID", help="Only this thread; may be repeated.")


@contextmanager
def _files() -> Iterator[None]:
    """What is wrong with a file is told as what the user typed."""
    try:
        yield
    except (FileExistsError, FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError) as error:
        raise click.ClickException(f"{error}") from error


@contextmanager
def _progress(session: Session, what: str) -> Iterator[Any]:
    with session.progress(what, None) as bar:

        def tell(done: Progress | MigrationProgress) -> None:
            bar(done.threads, done.of)

        yield tell


def _tell(session: Session, report: Report) -> None:
    if session.as_json:
        session.emit({name: getattr(report, name) for name in REPORT})
    else:
        session.say(f"{report}")
    if not report.ok:
        session.exit_code = ERROR


@command(
    "export",
    {
        "thread_id": "the thread",
        "checkpoint_ns": "namespace of the checkpoint",
        "checkpoint_id": "its id",
        "parent_id": "its parent; null: none",
        "ts": "when it was made, by the clock of the program",
        "metadata": "its metadata",
        "values": "its channels; see Values",
        "rebuilt": "of the newest checkpoint of a branch: DeltaChannels, as what they are rebuilt from",
        "writes": "its pending writes: task, channel, value",
        "lossy": "true: classes, bytes of pickled values and what JSON lacks cannot be made again from this",
    },
)
@thread_argument("threads", nargs=-1)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="The file. It may not exist.")
def export(session: Session, threads: tuple[str, ...], output: Path | None) -> None:
    """Writes threads (default: all) exactly into a file, or with --json for people to stdout.

    The file can be imported, and read without a server. It is encrypted if LGRS_PASSPHRASE_FILE names a file with a
    passphrase. With --json in place of -o, each checkpoint is a line of JSON, newest first: what a person may ask to see. That
    form cannot be imported.
    """
    if (output is None) != session.as_json:
        raise click.UsageError("name a file with -o, or use --json for text that people read; not both")
    saver = session.looking()
    names = [find_thread(saver, thread, exact=True) for thread in threads]
    if output is None:
        for name in names or [each.thread_id for each in saver.list_threads(newest_first=False)]:
            for record in _records(saver, name):
                session.emit(record)
        return
    with _files(), _progress(session, "exporting threads") as tell:
        report = export_threads(saver, output, threads=names or None, passphrase=passphrase(), progress=tell)
    _tell(session, report)


def _records(saver: RedisSaver, thread: str) -> Iterator[dict[str, Any]]:
    parents: set[tuple[str, str]] = set()
    for tup in saver.list({"configurable": {"thread_id": thread}}):
        place = tup.config["configurable"]
        ns, checkpoint = place["checkpoint_ns"], place["checkpoint_id"]
        parent = (tup.parent_config or {}).get("configurable", {}).get("checkpoint_id")
        newest = (ns, checkpoint) not in parents
        if parent:
            parents.add((ns, parent))
        yield {
            "thread_id": thread,
            "checkpoint_ns": ns,
            "checkpoint_id": checkpoint,
            "parent_id": parent,
            "ts": tup.checkpoint["ts"],
            "metadata": plain(dict(tup.metadata), all_bytes=True),
            "values": plain(tup.checkpoint["channel_values"], all_bytes=True),
            "rebuilt": plain(looking.delta_channels(saver, thread, tup) if newest else {}, all_bytes=True),
            "writes": [_write(*write) for write in tup.pending_writes or ()],
            "lossy": True,
        }


def _write(task: str, channel: str, value: Any) -> dict[str, Any]:
    return {"task": task, "channel": channel, "value": plain(value, all_bytes=True)}


@command("import", REPORT)
@click.argument("files", nargs=-1, required=True, type=click.Path(dir_okay=False, path_type=Path))
@thread_option
@click.option("--as", "name", metavar="ID", help="The id that the thread gets, if it is one thread.")
@click.option("--skip-existing", is_flag=True, help="Leave threads alone that exist; else they are failures.")
@click.option("--dry-run", is_flag=True, help="Only read and verify the files. Needs no server.")
def import_(
    session: Session, files: tuple[Path, ...], threads: tuple[str, ...], name: str | None, skip_existing: bool, dry_run: bool
) -> None:
    """Imports the threads of a file, or of a full backup and those that build on it, oldest first.

    A thread that exists is never changed; a deleted one may be imported again. Imported threads expire by settings of their own
    only: `lgrs ttl` sets them. Exit code 1 if a thread is damaged in the file, or exists.
    """
    if name is not None and len(threads) != 1:
        raise click.UsageError("--as needs one --thread")
    with _files():
        if dry_run:
            damaged = verify_archive(list(files), passphrase())
            report = Report(threads=len(_named(files)), problems=[f"{each}" for each in damaged])
            if report.ok and not session.as_json:
                session.say(f"{counted(report.threads, 'thread')}, every byte verified; nothing was imported")
                return
        else:
            with _progress(session, "importing threads") as tell:
                report = import_threads(
                    list(files),
                    session.steering(),
                    threads=threads or None,
                    names={threads[0]: name} if name is not None else None,
                    skip_existing=skip_existing,
                    passphrase=passphrase(),
                    progress=tell,
                )
    _tell(session, report)


def _named(files: tuple[Path, ...]) -> set[str]:
    """The threads whose content stands in some files."""
    with ExitStack() as stack:
        return {name for file in files for name in stack.enter_context(ArchiveSaver(file, passphrase=passphrase())).threads}


@command("backup", REPORT)
@file_argument
@click.option("--base", type=click.Path(dir_okay=False, path_type=Path), help="Write only what changed since this backup.")
def backup(session: Session, file: Path, base: Path | None) -> None:
    """Writes all threads into a file, or those that changed since another backup.

    To restore, name all files from the full one on: lgrs import FULL NEXT LAST. Threads that the last one does not name did not
    exist when it was made, and are not restored. It is encrypted as export is.
    """
    with _files(), _progress(session, "backing up threads") as tell:
        report = write_backup(session.looking(), file, base=base, passphrase=passphrase(), progress=tell)
    _tell(session, report)


MIGRATION = {
    "ok": "whether everything that the source still has is here",
    "threads": "threads that were migrated",
    "checkpoints": "checkpoints that were stored; of a dry run: would be",
    "already": "checkpoints that were here before",
    "writes": "pending writes of these, and of newest checkpoints that were here before",
    "tags": "tags",
    "verified": "checkpoints that were read on both sides and compared",
    "losses": "what the source does not keep, and how often",
    "differences": "what is not the same on both sides",
    "failures": "threads that could not be migrated, and why",
    "stored_bytes": "bytes that the prefix takes now; null: a dry run",
}


@command("migrate", MIGRATION)
@click.option(
    "--from",
    "source",
    required=True,
    envvar="LGRS_FROM",
    metavar="SPEC",
    help=f"The source, or LGRS_FROM: {', '.join(SPECS.values())}.",
)
@thread_option
@click.option("--workers", type=click.IntRange(1), default=1, help="Threads at a time (default: 1).")
@click.option("--verify/--no-verify", default=True, help="Read both sides and compare them (default).")
@click.option("--dry-run", is_flag=True, help="Only count.")
def migrate(session: Session, source: str, threads: tuple[str, ...], workers: int, verify: bool, dry_run: bool) -> None:
    """Copies threads from another saver, exactly, while its application still writes.

    Repeat it after an error, or for what is new meanwhile. Run it where the classes in the states can be imported. The source
    is not changed. Exit code 1 if a thread failed or differs, or if the source has none.
    """
    given = click.get_current_context().get_parameter_source("source")
    where = source.partition(":")[2]
    if given is not None and given.name == "COMMANDLINE" and (has_password(where) or has_password(where.partition("@")[2])):
        raise click.UsageError(
            "a password in --from can be seen by every user of this machine; put it into the environment variable LGRS_FROM"
        )
    serde = serializer(JsonPlusSerializer())
    with ExitStack() as stack:
        try:
            origin = opened(source, stack, {**keys(), "serde": serde})
        except ValueError as error:
            raise click.UsageError(f"{error}") from error
        except Exception as error:  # of a package that is not known here
            raise click.ClickException(f"the source cannot be opened: {type(error).__name__}: {error}") from error
        target = stack.enter_context(session.saver(read_only=False, serde=serde))
        with _progress(session, "migrating threads") as tell:
            report = copy_threads(
                origin, target, threads=threads or None, progress=tell, dry_run=dry_run, verify=verify, workers=workers
            )
        size = None if dry_run else target.stats().stored_bytes
    if session.as_json:
        told = {name: getattr(report, name) for name in MIGRATION if name not in ("differences", "stored_bytes")}
        session.emit(
            {name: told.get(name) for name in MIGRATION}
            | {"losses": dict(report.losses), "differences": [f"{each}" for each in report.differences], "stored_bytes": size}
        )
    else:
        session.say(f"{report}" + ("" if size is None else f"\n{size:,} bytes stored under the prefix"))
    if not report.threads:
        session.tell("the source has no threads; is --from right?")
    if not (report.ok and report.threads):
        session.exit_code = ERROR
