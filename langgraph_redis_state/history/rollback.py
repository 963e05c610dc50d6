"""rollback: going back to an earlier checkpoint.

*Fork* adds a new head that holds the target's values, and loses nothing. Its parent is the target's parent, because the writes
stored at a checkpoint produce its child: as a child of the target it would replay them in DeltaChannels. *Truncate* removes
what came after the target, and of the target's own writes what came after its interrupt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from functools import partial
from typing import Any
from uuid import UUID, uuid5

from langchain_core.runnables import RunnableConfig
from langgraph.checkpoint.base import WRITES_IDX_MAP, empty_checkpoint
from langgraph.checkpoint.serde.base import SerializerProtocol
from langgraph.checkpoint.serde.types import INTERRUPT, RESUME

from ..address import Address
from ..caching.manifests import Manifest
from ..caching.parts import Parts
from ..effects import Operation, Read, Script
from ..errors import CheckpointNotFoundError, ThreadBusyError
from ..operations import freshness
from ..operations.engine import Engine
from ..operations.reading import PAGE_CHECKPOINTS, Cursor, fetch, read_page
from ..operations.removing import BUSY_TRIES, remove
from ..operations.surveying import read_headers
from ..operations.thread_headers import INTERRUPTED, CheckpointKey, StoredWrites, ThreadHeaders
from ..operations.uploading import upload
from ..operations.writing import encode_checkpoint
from ..scripts import commands
from ..serialization import deltas
from ..serialization.decode import StoredCheckpoint
from ..serialization.encode import NewCheckpoint, dumped, stored_rest
from ..storage import bodies, keys, records
from ..storage.ids import id_above
from ..storage.keys import newest_of_each
from .resolving import check_whole, resolve

Back = Callable[[Engine, SerializerProtocol, Address, ThreadHeaders, str], Operation[str | None]]
"""One attempt to go back to a checkpoint of a survey. Returns the new head, or None if the thread changed meanwhile."""


def fork_to(engine: Engine, serde: SerializerProtocol, thread: Any, to: str | int) -> Operation[RunnableConfig]:
    return (yield from _go_back(engine, serde, thread, to, _fork, commands.FORK))


def truncate_to(engine: Engine, serde: SerializerProtocol, thread: Any, to: str | int) -> Operation[RunnableConfig]:
    return (yield from _go_back(engine, serde, thread, to, _truncate, commands.REMOVE))


def _go_back(
    engine: Engine, serde: SerializerProtocol, thread: Any, to: str | int, go: Back, script: Script
) -> Operation[RunnableConfig]:
    target = engine.address(thread)
    about = target.about("rollback")
    yield from engine.check_layout(True, script, commands.LIST, commands.GET)
    goal = yield from resolve(engine, target, to, about)
    for _ in range(BUSY_TRIES):
        survey = yield from read_headers(engine, target, use=True)
        if survey is None:
            continue
        if ("", goal) not in survey.headers:
            raise CheckpointNotFoundError(f"{about}: the checkpoint {goal!r} is not there any more")
        for ns, origin in _origins(survey, goal).items():
            if origin and survey.headers[(ns, origin)].depth:
                yield from check_whole(engine, serde, engine.address(thread, ns), origin.encode(), about)
        head = yield from go(engine, serde, target, survey, goal)
        if head is not None:
            return target.config(b"", head)
    raise ThreadBusyError(f"{about}: the thread changed each of {BUSY_TRIES} times; nothing was changed, try again")


def _fork(
    engine: Engine, serde: SerializerProtocol, target: Address, survey: ThreadHeaders, goal: str
) -> Operation[str | None]:
    about = target.about("rollback")
    origins = _origins(survey, goal)
    wanted = [(ns.encode(), origin.encode()) for ns, origin in origins.items() if origin]
    found, parts = yield from fetch(engine, target, wanted)
    fields = [target.keys.names.field(keys.history_field(*each)) for each in wanted]
    (contents,) = yield Read([("HMGET", target.keys.hash, *fields)], about)
    histories = {ns.decode(): content for (ns, _), content in zip(wanted, contents, strict=True) if content}
    origin_of = {each.ns.decode(): each for each in found}
    newest = newest_of_each(survey.headers)
    heads = {ns: id_above(newest[ns], about) for ns in origins}
    pages: dict[bytes, bytes] = {}
    known: list[tuple[str, Manifest]] = []
    filed = yield from _filed(engine, serde, target, goal)
    made: list[tuple[bytes, bytes, bytes, bytes]] = []
    for ns, head in heads.items():
        there = engine.address(target.given, ns)
        yield from engine.unlock(there)
        there.checkpoint = head.encode()
        encoded = encode_checkpoint(engine, there, _forked(serde, there, origin_of.get(ns), parts, heads[""]))
        history = b""
        if ns in histories:
            here, new = (there.place(b"H", there.ns, each.encode()) for each in (origins[ns], head))
            history = records.moved(histories[ns], here, new, there.seal, there.seal)[1]
        made.append((there.ns, there.checkpoint, encoded.record, history))
        pages |= encoded.pages
        known.append((ns, encoded.known))
    call = partial(
        commands.fork,
        target.keys,
        about,
        revision=survey.revision,
        ttl=engine.settings.ttl,
        max_bytes=engine.settings.max_bytes,
        checkpoints=made,
        metadata=filed,
        upload=(yield from upload(engine, target, about, pages, {})),
    )
    heads_made = [(ns, checkpoint, record) for ns, checkpoint, record, _ in made]
    if not (yield from freshness.fork(engine, target, survey, heads_made, call)):
        return None
    for ns, each in known:
        engine.manifests.put(target.keys.name, ns.encode(), heads[ns].encode(), each)
    return heads[""]


def _forked(
    serde: SerializerProtocol, target: Address, origin: StoredCheckpoint | None, parts: Parts, root: str
) -> NewCheckpoint:
    """The checkpoint of a fork in the namespace of `target`: a copy of `origin`, or an empty checkpoint. `root` is the fork's
    head."""
    about = target.about("rollback")
    checkpoint: Mapping[str, Any] = empty_checkpoint()
    metadata: dict[str, Any] = {"step": -2}  # LangGraph assumes this step if nothing is stored
    header = records.Header()
    values: dict[str, bodies.Value] = {}
    rebuilt: dict[str, int] = {}
    if origin is not None:
        checkpoint, stored = origin.load(serde)
        header = origin.header
        metadata = {name: value for name, value in stored.items() if name != "run_id"}
        metadata |= {"step": (stored.get("step") or 0) + 1, "forked_from": origin.checkpoint.decode()}
        values = origin.values(parts)
        rebuilt = deltas.rebuilt(origin, checkpoint["channel_versions"], stored)
    metadata["source"] = "fork"
    if target.ns:
        metadata["parents"] = {**metadata.get("parents", {}), "": root}
    rest, flags = stored_rest({**checkpoint, "ts": datetime.now(timezone.utc).isoformat()})
    return NewCheckpoint(
        rest=dumped(serde, [rest, metadata], f"{about}: the checkpoint's metadata"),
        serialized={},
        carried=values,
        versions=dict(checkpoint["channel_versions"]),
        flags=flags,
        rebuilt=rebuilt,
        parent=(header.parent or "").encode(),
        root=root.encode() if target.ns else b"",
        run=b"",
        fork=root.encode(),
    )


def _truncate(
    engine: Engine, serde: SerializerProtocol, target: Address, survey: ThreadHeaders, goal: str
) -> Operation[str | None]:
    dropped, replaced = _taken_back(survey, goal)
    if not dropped and not replaced:
        return goal
    filed = yield from _filed(engine, serde, target, goal)
    removed = yield from remove(engine, serde, target, survey, dropped, replaced, filed)
    return goal if removed else None


def _filed(engine: Engine, serde: SerializerProtocol, target: Address, goal: str) -> Operation[list[tuple[bytes, bytes]]]:
    """The indexed metadata of a thread whose newest checkpoint is `goal`: for each key, the value in the newest checkpoint up
    to `goal` that has the key; '' if none has it."""
    missing = dict.fromkeys((name.encode() for name in engine.settings.index), b"")
    filed: dict[bytes, bytes] = {}
    cursor: Cursor | None = (goal.encode() + b"\x01", None)
    most = 1  # almost always the first has all keys
    while missing and cursor is not None:
        page = yield from read_page(engine, target, "", cursor, most, whole=False)
        for each in page.found:
            told = dict(engine.indexed(each.load(serde)[1]))
            filed = told | filed
            for name in told:
                missing.pop(name, None)
        cursor, most = page.following, PAGE_CHECKPOINTS
    return [*(missing | filed).items()]


_RESUMED = WRITES_IDX_MAP[RESUME]


def _before(survey: ThreadHeaders, goal: str) -> tuple[set[CheckpointKey], dict[str, str]]:
    """The checkpoints that were there when the thread stood at `goal`, and for each namespace that asked something in the
    step after it, which checkpoint asked first.

    Checkpoints that subgraphs made while the target's own step ran are taken back to where its interrupt was first asked: in
    the namespace that asked, those up to the asking one stay; in others, those from before the answer. If the step ended
    without asking they all go, and if nothing came after the target they all stay. So a subgraph asks where it asked before,
    also one that remembers earlier calls, which LangGraph would take for finished without that checkpoint.
    """
    thread = survey.headers
    own = [header for header, _ in survey.writes.get(("", goal), ())]
    resumed = [header.created_at for header in own if header.index == _RESUMED]
    asked = any(header.index == INTERRUPTED for header in own)
    untouched = ("", goal) not in survey.parents() and not resumed
    asking: dict[str, str] = {}
    for (ns, checkpoint), header in thread.items():
        if header.root == goal and survey.interrupted((ns, checkpoint)):
            asking[ns] = min(asking.get(ns, checkpoint), checkpoint)

    def stays(ns: str, checkpoint: str, header: records.Header) -> bool:
        if ns == "":
            return checkpoint <= goal
        if header.root is None or header.root < goal:
            return True
        if header.root > goal:
            return False
        if untouched or header.fork:  # made with the target, not by the step after it
            return True
        if not asked:
            return False
        return checkpoint <= asking[ns] if ns in asking else not resumed or header.created_at < min(resumed)

    return {place for place, header in thread.items() if stays(*place, header)}, asking


def _origins(survey: ThreadHeaders, goal: str) -> dict[str, str]:
    """The checkpoints that a fork to `goal` copies: in the root namespace the target; in each namespace that remembers earlier
    calls and has newer checkpoints, its newest checkpoint from that time, or "" if there was none."""
    there, _ = _before(survey, goal)
    then, now = newest_of_each(there), newest_of_each(survey.headers)
    return {"": goal} | {ns: then.get(ns, "") for ns in now if ns and ":" not in ns and then.get(ns) != now[ns]}


def _taken_back(survey: ThreadHeaders, goal: str) -> tuple[list[CheckpointKey], dict[CheckpointKey, StoredWrites]]:
    """What a truncation to `goal` removes: checkpoints; and, of those that become the newest, which writes stay."""
    parents = survey.parents()
    there, asking = _before(survey, goal)
    dropped = [place for place in survey.headers if place not in there]
    touched = {"", *(ns for ns, _ in dropped), *asking}
    replaced: dict[CheckpointKey, StoredWrites] = {}
    for place in {**newest_of_each(there), "": goal}.items():
        writes = survey.writes.get(place, [])
        kept = _writes_kept(place[1], [header for header, _ in writes], place in parents)
        if place[0] in touched and len(kept) < len(writes):
            replaced[place] = [writes[at] for at in kept]
    return dropped, replaced


def _writes_kept(goal: str, headers: Sequence[records.Header], continued: bool) -> list[int]:
    """Which pending writes of a truncation's target stay, as positions; `continued`: it had a child.

    They stay as they were when its interrupt was first asked: the interrupt, and the results that were saved beside it by
    tasks that had finished. What came with or after the answer goes; so do a RESUME, what the interrupted tasks wrote once
    answered, and what LangGraph keeps here for the next checkpoint: graph input and `update_state`, under ids made of the
    checkpoint's (langgraph/pregel/_loop.py, main.py). Without an interrupt, all that a step left for its child goes.
    """
    if not continued and not any(header.index == _RESUMED for header in headers):
        return list(range(len(headers)))
    interrupted = {header.task for header in headers if header.index == INTERRUPTED}
    if not interrupted:
        return []
    answered = min((header.version for header in headers if header.index == _RESUMED), default=1 << 40)
    foreign: set[str] = set()
    with suppress(ValueError):  # not a UUID, so not an id of LangGraph, and no ids are derived from it
        foreign = {str(uuid5(UUID(goal), name)) for name in ("__input__", INTERRUPT)}
    return [
        at
        for at, header in enumerate(headers)
        if header.index == INTERRUPTED
        or (
            header.index != _RESUMED
            and header.task not in interrupted
            and header.task not in foreign
            and header.version < answered
        )
    ]
