"""Commands on the health of what is stored: verify, repair, doctor."""

from __future__ import annotations

from typing import Any

import click
from rich.text import Text

from .. import Finding, Progress, RedisSaver
from ..inspection.doctor import examine
from ..inspection.selecting import find_thread
from ..inspection.values import line
from . import printing
from .command import command, thread_argument
from .session import FINDINGS, Session, shell_word
from .steer import dry_option, yes_option


def _total(saver: RedisSaver, thread: str | None) -> int:
    return 1 if thread is not None else sum(1 for _ in saver.list_threads())


@command(
    "verify",
    {
        "kind": "damaged, lost, unknown, index, bucket, counts, settings, expiry, orphan, staging or busy",
        "thread_id": "the thread; null: none is concerned",
        "where": "what of it",
        "problem": "what is wrong",
        "repairable": "whether repair mends it without loss",
    },
)
@thread_argument(required=False)
def verify(session: Session, thread: str | None) -> None:
    """Reads and checks every stored byte of a thread, or of all threads. Exit code 3 if something is wrong."""
    saver = session.looking()
    thread = None if thread is None else find_thread(saver, thread)
    found = 0
    mendable = False
    with session.progress("verifying threads", _total(saver, thread)) as progress:
        for finding in saver.verify(thread, progress=lambda seen: progress(seen.threads)):
            found += 1
            mendable = mendable or finding.repairable
            _tell_finding(session, finding)
    if not found:
        if not session.as_json:
            session.say("nothing is wrong", "green")
        return
    session.exit_code = FINDINGS
    name = f" {shell_word(thread)}" if thread is not None else ""
    if mendable:
        session.next(f"repair{name}", "mends without loss what it can")
    else:
        session.next(f"repair{name} --drop-unreadable", "removes what cannot be read: nothing restores it")


def _tell_finding(session: Session, finding: Finding) -> None:
    if session.as_json:
        session.emit(
            {
                "kind": finding.kind,
                "thread_id": finding.thread_id,
                "where": finding.where,
                "problem": finding.problem,
                "repairable": finding.repairable,
            }
        )
        return
    head = Text.assemble((finding.kind, "yellow" if finding.repairable else "red"), "  ")
    head.append(line(f"{finding.thread_id or '(no thread)'}, {finding.where}: {finding.problem}"))
    session.out.print(head)


@command(
    "repair",
    {
        "kind": "that of the finding",
        "thread_id": "the thread; null: none is concerned",
        "where": "what of it",
        "done": "what was done; of a dry run what is wrong",
        "repaired": "whether something was done",
    },
)
@thread_argument(required=False)
@click.option("--drop-unreadable", is_flag=True, help="Also remove what cannot be read. Nothing restores it.")
@yes_option
@dry_option
def repair(session: Session, thread: str | None, drop_unreadable: bool, yes: bool, dry_run: bool) -> None:
    """Repairs what verify finds, in a thread or in all. What is only mended loses nothing; what is dropped is gone."""
    looker = session.looking()
    thread = None if thread is None else find_thread(looker, thread, exact=True)
    total = _total(looker, thread)
    with session.progress("verifying threads", total) as progress:
        found = list(looker.verify(thread, progress=lambda seen: progress(seen.threads)))
    chosen = [each for each in found if each.repairable or drop_unreadable]
    left = len(found) - len(chosen)
    dropped = [each for each in chosen if not each.repairable]
    go = bool(chosen)
    if chosen and not session.as_json:
        for each in chosen:
            session.tell(f"  {each.kind}  {each.thread_id or '(no thread)'}, {each.where}: {each.problem}")
    if chosen and (dropped or dry_run):
        what = f"{len(chosen) - len(dropped)} findings would be mended, and {len(dropped)} unreadable things removed for good."
        go = session.may_change(what, yes=yes, dry_run=dry_run)
    if go:
        with session.progress("repairing threads", total) as progress:
            for done in session.steering().repair(thread, drop_unreadable=drop_unreadable, progress=_count(progress)):
                record = {
                    "kind": done.kind,
                    "thread_id": done.thread_id,
                    "where": done.where,
                    "done": done.done,
                    "repaired": True,
                }
                if session.as_json:
                    session.emit(record)
                else:
                    session.out.print(Text(line(f"{done.kind}  {done.thread_id or '(no thread)'}, {done.where}: {done.done}")))
    elif session.as_json:
        for each in chosen:
            record = {
                "kind": each.kind,
                "thread_id": each.thread_id,
                "where": each.where,
                "done": each.problem,
                "repaired": False,
            }
            session.emit(record)
    if not found:
        session.tell("nothing is wrong")
    if left:
        session.exit_code = FINDINGS
        session.tell(f"{left} findings cannot be mended without loss; --drop-unreadable removes what they name")


def _count(progress: Any) -> Any:
    def seen(now: Progress) -> None:
        progress(now.threads)

    return seen


@command(
    "doctor",
    {
        "check": "what was looked at",
        "level": "fine, notice, problem or unknown (it may not be asked)",
        "found": "what is so",
        "advice": "what to do",
    },
)
def doctor(session: Session) -> None:
    """Looks at the server and its settings: version, layout, rights, eviction, memory, persistence, replicas, clocks.

    Exit code 3 if there is a problem.
    """
    styles = {"fine": "green", "notice": "yellow", "problem": "red", "unknown": "dim"}
    checks = examine(session.looking(), session.steering())
    for check in checks:
        if check.level == "problem":
            session.exit_code = FINDINGS
        if session.as_json:
            session.emit({"check": check.name, "level": check.level, "found": check.found, "advice": check.advice})
            continue
        head = Text.assemble((f"{check.level:8}", styles[check.level]), (f"{check.name}: ", "bold"), line(check.found))
        session.out.print(head)
        if check.advice:
            session.out.print(printing.paragraph(check.advice, 8, "dim"))
