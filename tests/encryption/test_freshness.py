"""With freshness, what somebody without the key puts back or takes away in a living thread is found when it is read."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, TypedDict

import pytest
from audit import monitored
from langgraph.graph import START, StateGraph
from langgraph.types import Command, interrupt
from shapes import at, checkpoint, metadata
from soak import rare

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.client import driver
from langgraph_redis_state.errors import CheckpointCorruptError, InvalidConfigError, ThreadNotFoundError, WitnessError
from langgraph_redis_state.operations import copying
from langgraph_redis_state.storage.keys import ThreadKeys
from langgraph_redis_state.storage.thread_fields import joined_writes

KEY, NAME_KEY = bytes(range(32)), bytes(range(32, 64))
KEYS = {
    "signed": {"integrity_key": KEY},
    "encrypted": {"encryption_key": KEY},
    "names hidden": {"encryption_key": KEY, "name_key": NAME_KEY},
    "a key for each thread": {"encryption_key": lambda thread: thread.encode().ljust(32, b".")},
}
IDS = [f"1f0a0000-0000-6000-8000-0000000000{n:02}" for n in range(80)]


each_key = pytest.mark.parametrize(
    "options", [name if name in ("signed", "names hidden") else rare(name) for name in KEYS], indirect=True
)


@pytest.fixture
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    return KEYS[getattr(request, "param", "encrypted")]


@pytest.fixture
def make(url: str, prefix: str, options: dict[str, Any]) -> Iterator[Callable[..., RedisSaver]]:
    made: list[RedisSaver] = []

    def build(**more: Any) -> RedisSaver:
        made.append(RedisSaver(url, prefix=prefix, **{"freshness": True, **options, **more}))
        return made[-1]

    yield build
    for each in made:
        each.close()


@pytest.fixture
def saver(make: Callable[..., RedisSaver]) -> RedisSaver:
    return make()


def put(saver: RedisSaver, n: int, ns: str = "", value: object = None, thread: str = "t", **more: Any) -> Any:
    made = checkpoint({"x": n if value is None else value}, id=IDS[n])
    parent = at(thread, ns, IDS[n - 1]) if n else at(thread, ns)
    return saver.put(parent, made, metadata(**more), made["channel_versions"])


def chat(saver: RedisSaver, steps: int, thread: str = "t") -> Any:
    for n in range(steps):
        config = put(saver, n, thread=thread)
        saver.put_writes(config, [("x", f"w{n}")], f"task {n}")
    return config


class Server:
    """The thread as somebody with access to the server has it."""

    def __init__(self, raw: Any, saver: RedisSaver, thread: str = "t") -> None:
        self.raw, self.keys = raw, saver._engine.address(thread).keys

    def field(self, kind: bytes, n: int, ns: bytes = b"") -> bytes:
        return self.keys.names.field(kind + ns + b"\0" + IDS[n].encode())

    def get(self, field: bytes) -> bytes | None:
        return self.raw.hget(self.keys.hash, field)

    def set(self, field: bytes, content: bytes | None) -> None:
        if content is None:
            self.raw.hdel(self.keys.hash, field)
        else:
            self.raw.hset(self.keys.hash, field, content)

    def dump(self) -> tuple[bytes, bytes]:
        return self.raw.dump(self.keys.all[0]), self.raw.dump(self.keys.all[1])

    def restore(self, dumps: tuple[bytes, bytes]) -> None:
        for key, dump in zip(self.keys.all, dumps, strict=False):
            self.raw.restore(key, 0, dump, replace=True)


@pytest.fixture
def there(raw: Any, saver: RedisSaver) -> Server:
    return Server(raw, saver)


def refused(saver: RedisSaver, n: int | None, ns: str = "") -> None:
    config = at("t", ns) if n is None else at("t", ns, IDS[n])
    with pytest.raises(CheckpointCorruptError, match="replayed or removed"):
        saver.get_tuple(config)
    with pytest.raises(CheckpointCorruptError, match="replayed or removed"):
        list(saver.list(at("t", ns)))
    assert "replayed" in {found.kind for found in saver.verify("t")}


# --- what is found ---


@each_key
@pytest.mark.parametrize("after", [0, 5], ids=["the newest", "an old one"])
def test_an_older_record_under_its_own_id(saver: RedisSaver, there: Server, after: int) -> None:
    chat(saver, 3)
    old = there.get(there.field(b"C", 2))
    put(saver, 2, value="another")
    for n in range(3, 3 + after):
        put(saver, n)
    assert saver.get_tuple(at("t", "", IDS[2])).checkpoint["channel_values"] == {"x": "another"}
    there.set(there.field(b"C", 2), old)
    refused(saver, 2)


@each_key
@pytest.mark.parametrize("after", [0, 5], ids=["the newest", "an old one"])
def test_an_older_answer_to_an_interrupt(saver: RedisSaver, there: Server, after: int) -> None:
    config = chat(saver, 3)
    saver.put_writes(config, [("__resume__", "no")], "task 2")
    no = there.get(there.field(b"W", 2))
    saver.put_writes(config, [("__resume__", "yes")], "task 2")
    for n in range(3, 3 + after):
        put(saver, n)
    assert ("task 2", "__resume__", "yes") in saver.get_tuple(at("t", "", IDS[2])).pending_writes
    there.set(there.field(b"W", 2), no)
    refused(saver, 2)


@pytest.mark.parametrize("after", [0, 5], ids=["the newest", "an old one"])
@pytest.mark.parametrize("left", ["one", "none"])
def test_pending_writes_that_were_taken_out_with_the_count_mended(
    saver: RedisSaver, there: Server, after: int, left: str
) -> None:
    config = chat(saver, 3)
    one = there.get(there.field(b"W", 2))
    saver.put_writes(config, [("x", "second")], "task 3")
    for n in range(3, 3 + after):
        put(saver, n)
    there.set(there.field(b"W", 2), one if left == "one" else None)
    refused(saver, 2)


def test_a_segment_of_pending_writes_that_was_taken_out_with_its_directory(saver: RedisSaver, there: Server) -> None:
    config = put(saver, 0)
    for n in range(12):
        saver.put_writes(config, [("x", "long" * 30)], f"task {n}")
    spread = [name for name in there.raw.hkeys(there.keys.hash) if name.startswith(there.field(b"W", 0) + b"\0")]
    assert len(spread) > 1
    assert len(saver.get_tuple(at("t")).pending_writes) == 12
    for name in spread:
        there.set(name, None)
    refused(saver, None)


@pytest.mark.parametrize("ns", ["", "remembers"])
def test_the_newest_checkpoint_taken_away(saver: RedisSaver, there: Server, ns: str) -> None:
    chat(saver, 2)
    put(saver, 2, ns)
    put(saver, 3, ns)
    for kind in (b"C", b"W"):
        there.set(there.field(kind, 3, ns.encode()), None)
    stored = there.field(b"C", 3, ns.encode())
    there.raw.zrem(there.keys.all[1], stored, b"A" + IDS[3].encode() + b"\0" + stored[1:].partition(b"\0")[0])
    refused(saver, None, ns)
    with pytest.raises(CheckpointCorruptError, match="replayed or removed"):
        saver.get_tuple(at("t", ns, IDS[3]))


@each_key
@pytest.mark.parametrize("what", ["statement", "frozen entry"])
@pytest.mark.parametrize("how", ["older", "gone", "of another thread", "flipped"])
def test_what_seals_the_thread_is_itself_sealed(saver: RedisSaver, there: Server, raw: Any, what: str, how: str) -> None:
    chat(saver, 6)
    chat(saver, 6, "other")
    field, n = (b"Z", None) if what == "statement" else (there.field(b"F", 1), 1)
    before = there.get(field)
    assert before is not None
    if how == "of another thread":
        other = Server(raw, saver, "other")
        there.set(field, other.get(field))
    elif how == "gone":
        there.set(field, None)
    elif how == "flipped":
        there.set(field, before[:-1] + bytes([before[-1] ^ 1]))
    else:  # a late write brings the frozen entry back into the statement, for good
        saver.put_writes(at("t", "", IDS[1]), [("x", "late")], "late")
        there.set(there.field(b"W", 1), None) if n else None
        there.set(field, before)
    config = at("t") if n is None and how != "older" else at("t", "", IDS[1])
    with pytest.raises(CheckpointCorruptError):
        saver.get_tuple(config)
    assert list(saver.verify("t")) != []


def test_nothing_is_written_onto_what_was_changed(make: Callable[..., RedisSaver], saver: RedisSaver, there: Server) -> None:
    config = chat(saver, 3)
    there.set(there.field(b"W", 2), None)
    before = there.raw.hgetall(there.keys.hash)
    with pytest.raises(CheckpointCorruptError, match="replayed or removed"):
        make().put_writes(config, [("x", 1)], "another task")
    assert there.raw.hgetall(there.keys.hash) == before


@each_key
def test_the_whole_thread_as_it_once_was_is_read_and_the_witness_knows_better(
    make: Callable[..., RedisSaver], saver: RedisSaver, there: Server
) -> None:
    told: dict[str, tuple[int, bytes]] = {}
    watched = make(witness=lambda thread, revision, digest: told.update({thread: (revision, digest)}))
    chat(watched, 3)
    dumps = there.dump()
    assert saver.statement("t") == told["t"]
    put(watched, 3)
    assert saver.statement("t") == told["t"]
    there.restore(dumps)
    assert saver.get_tuple(at("t")).checkpoint["id"] == IDS[2]
    now = saver.statement("t")
    assert now is not None
    assert now[0] < told["t"][0]
    watched.delete_thread("t")
    assert saver.statement("t") is None
    there.restore(dumps)
    assert saver.statement("t") == now


# --- what somebody prepares who waits ---


def all_of(there: Server, n: int) -> dict[bytes, bytes | None]:
    return {field: there.get(field) for field in (there.field(kind, n) for kind in (b"C", b"W", b"F"))}


def put_back(there: Server, fields: dict[bytes, bytes | None]) -> None:
    for field, content in fields.items():
        there.set(field, content)


def hide(there: Server, n: int, ns: bytes = b"", whole: bool = True) -> None:
    """Takes a checkpoint out of the index, `whole`: and out of the hash."""
    for kind in (b"C", b"W", b"F") if whole else ():
        there.set(there.field(kind, n, ns), None)
    stored = there.field(b"C", n, ns)
    there.raw.zrem(there.keys.all[1], stored, b"A" + IDS[n].encode() + b"\0" + stored[1:].partition(b"\0")[0])


def answered(saver: RedisSaver, n: int, thread: str = "t") -> None:
    saver.put_writes(at(thread, "", IDS[n]), [("__resume__", "yes")], f"task {n}")


def refused_by_id(saver: RedisSaver, n: int, thread: str = "t") -> None:
    with pytest.raises(CheckpointCorruptError, match="replayed or removed"):
        saver.get_tuple(at(thread, "", IDS[n]))
    assert list(saver.verify(thread)) != []


def test_what_was_frozen_before_keys_changed(make: Callable[..., RedisSaver], saver: RedisSaver, there: Server) -> None:
    chat(saver, 6)
    before = all_of(there, 1)
    answered(saver, 1)  # the frozen entry returns to the statement
    both = make(encryption_key=[bytes(reversed(KEY)), KEY])
    assert both.rekey(["t"]) == 1  # and is frozen again
    put_back(there, before)
    refused_by_id(both, 1)


def test_what_was_frozen_before_a_repair(saver: RedisSaver, there: Server) -> None:
    chat(saver, 6)
    before = all_of(there, 1)
    answered(saver, 1)
    there.set(there.field(b"F", 0), None)
    list(saver.repair("t", drop_unreadable=True))
    assert list(saver.verify("t")) == []
    put_back(there, before)
    refused_by_id(saver, 1)


@pytest.mark.parametrize("how", ["copied", "written"])
def test_what_was_frozen_before_the_thread_was_deleted(saver: RedisSaver, there: Server, raw: Any, how: str) -> None:
    chat(saver, 6)
    copy = Server(raw, saver, "copy")
    saver.copy_thread("t", "copy")
    before = all_of(copy, 1)
    saver.delete_thread("copy")
    raw.delete(copy.keys.tombstone)
    if how == "copied":
        answered(saver, 1)
        saver.copy_thread("t", "copy")
    else:
        chat(saver, 6, "copy")
        answered(saver, 1, "copy")
        saver.copy_thread("copy", "another")
    put_back(copy, before)
    with pytest.raises(CheckpointCorruptError, match="replayed or removed"):
        saver.get_tuple(at("copy", "", IDS[1]))


@pytest.mark.parametrize("whole", [False, True], ids=["its frozen entry", "all of it"])
def test_a_checkpoint_that_is_hidden_while_a_late_write_comes(saver: RedisSaver, there: Server, whole: bool) -> None:
    chat(saver, 6)
    before = all_of(there, 1)
    for field in before:
        if whole or field[:1] == b"F":
            there.set(field, None)
    if not whole:
        with pytest.raises(CheckpointCorruptError, match="replayed or removed"):
            answered(saver, 1)
        return
    answered(saver, 1)  # as a write that comes before its checkpoint
    for n in range(6, 10):
        put(saver, n)
    put_back(there, before)
    refused_by_id(saver, 1)


@pytest.mark.parametrize("named", [False, True], ids=["the newest", "by its id"])
def test_delta_channels_of_a_checkpoint_that_is_taken_away_meanwhile(saver: RedisSaver, there: Server, named: bool) -> None:
    chat(saver, 3)
    hide(there, 2)
    with pytest.raises(CheckpointCorruptError, match="replayed or removed"):
        saver.get_delta_channel_history(config=at("t", "", IDS[2] if named else None), channels=["x"])


@pytest.mark.parametrize("whole", [True, False], ids=["hash and index", "index"])
def test_a_checkpoint_taken_out_of_the_middle_of_a_list(saver: RedisSaver, there: Server, whole: bool) -> None:
    chat(saver, 4)
    put(saver, 2, "remembers")
    newest = at("t", "", IDS[3])
    hide(there, 2, whole=whole)
    for listing in (
        lambda: list(saver.list(at("t"))),
        lambda: list(saver.list(at("t"), limit=2)),
        lambda: list(saver.list(at("t"), before=newest, limit=1)),
        lambda: list(saver.list(at("t", None), before=newest)),
        lambda: list(saver.list(at("t"), filter={"step": 0})),
        lambda: list(saver.history("t")),
        lambda: saver.prune(["t"]),
    ):
        with pytest.raises(CheckpointCorruptError, match="replayed or removed"):
            listing()
    assert [each.checkpoint["id"] for each in saver.list(at("t"), limit=1)] == [IDS[3]]
    assert [each.checkpoint["id"] for each in saver.list(at("t"), before=at("t", "", IDS[2]))] == [IDS[1], IDS[0]]


def test_a_namespace_taken_out_of_a_list_of_all(saver: RedisSaver, there: Server) -> None:
    chat(saver, 6)
    put(saver, 2, "remembers")
    for n in range(6, 9):
        put(saver, n)
    assert len(list(saver.list(at("t", None)))) == 10
    hide(there, 2, b"remembers")
    with pytest.raises(CheckpointCorruptError, match="replayed or removed"):
        list(saver.list(at("t", None)))


@pytest.mark.parametrize("what", ["older", "hidden", "all hidden"])
def test_heads_are_held_against_the_statement(saver: RedisSaver, there: Server, what: str) -> None:
    chat(saver, 3)
    chat(saver, 2, "other")
    old = there.get(there.field(b"C", 2))
    put(saver, 2, value="another")
    put(saver, 2, "remembers")
    if what == "older":
        there.set(there.field(b"C", 2), old)
    for n in {"older": (), "hidden": (2,), "all hidden": (0, 1, 2)}[what]:
        hide(there, n)
    found, other = saver.heads(["t", "other"])
    assert ("its index is gone" if what == "all hidden" else "replayed or removed") in str(found.problem)
    assert other.checkpoint_id == IDS[1]


def test_an_older_answer_beside_the_newer_one(saver: RedisSaver, there: Server) -> None:
    config = put(saver, 0)
    saver.put_writes(config, [("__resume__", "no")], "task")
    no = there.get(there.field(b"W", 0))
    saver.put_writes(config, [("__resume__", "yes")], "task")
    yes = there.get(there.field(b"W", 0))
    assert no is not None
    assert yes is not None
    there.set(there.field(b"W", 0), joined_writes([no[8:], yes[8:]]))
    for reading in (
        lambda: saver.get_tuple(config),
        lambda: saver.writes("t"),
        lambda: list(saver.history("t")),
        lambda: saver.copy_thread("t", "u"),
    ):
        with pytest.raises(CheckpointCorruptError, match="stands there twice"):
            reading()
    (head,) = saver.heads(["t"])
    assert "stands there twice" in str(head.problem)


# --- what goes on as ever ---


def test_a_read_or_write_is_one_round_trip(make: Callable[..., RedisSaver], saver: RedisSaver, url: str) -> None:
    chat(saver, 3)
    other = make()
    put(other, 0, thread="another")
    other.get_tuple(at("t"))
    with monitored(url) as sent:
        config = put(other, 3)
        other.put_writes(config, [("x", 1)], "a task")
        other.put_writes(config, [("x", 2)], "b task")
        other.get_tuple(at("t"))
        list(other.list(at("t")))
    assert [each for each in sent if each != "EVAL"] == ["EVALSHA"] * 5  # EVAL: the first use of a script on this server
    with monitored(url) as sent:  # by a process that does not know of it
        saver.put_writes(config, [("x", 3)], "c task")
    assert [each for each in sent if each != "EVAL"] == ["EVALSHA"] * 2
    assert len(saver.get_tuple(at("t")).pending_writes) == 3


def test_the_statement_stays_small(saver: RedisSaver, there: Server) -> None:
    sizes = []
    for n in range(30):
        config = put(saver, n)
        for task in range(4):
            inner = put(saver, n, f"sub:{n}{task}")
            put(saver, n + 1, f"sub:{n}{task}")
            saver.put_writes(inner, [("x", 1)], f"{task}")
        put(saver, n, "remembers")
        saver.put_writes(config, [("x", 1)], "task")
        sizes.append(len(there.get(b"Z") or b""))
    assert max(sizes[10:]) < 1.1 * max(sizes[:10])
    assert list(saver.verify("t")) == []
    assert len(list(saver.list(at("t", None)))) == 30 * 10


async def test_many_tasks_of_a_process_do_not_stand_in_each_others_way(
    make: Callable[..., RedisSaver], saver: RedisSaver, url: str, prefix: str
) -> None:
    config = put(saver, 0)
    with monitored(url) as sent:
        await asyncio.gather(*(saver.aput_writes(config, [("x", n)], f"a{n}") for n in range(30)))
    assert len(sent) <= 32
    with monitored(url) as sent, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: saver.put_writes(config, [("x", n)], f"b{n}"), range(30)))
    assert len(sent) <= 32
    assert len(saver.get_tuple(at("t")).pending_writes) == 60
    assert saver._engine.turns._queues == {}


def test_two_processes_that_write_to_one_checkpoint_lose_nothing(make: Callable[..., RedisSaver], saver: RedisSaver) -> None:
    config = put(saver, 0)
    others = [make() for _ in range(3)]
    with ThreadPoolExecutor(3) as pool:
        list(
            pool.map(
                lambda each: [each[1].put_writes(config, [("x", n)], f"{each[0]} {n}") for n in range(15)], enumerate(others)
            )
        )
    assert len(saver.get_tuple(at("t")).pending_writes) == 45
    assert list(saver.verify("t")) == []


@pytest.mark.parametrize("level", [logging.WARNING, logging.DEBUG], ids=["plain", "watched"])
async def test_a_task_that_is_cancelled_while_it_waits_lets_the_others_go_on(
    saver: RedisSaver, caplog: pytest.LogCaptureFixture, level: int
) -> None:
    caplog.set_level(level, "langgraph_redis_state")  # the debug log watches operations, as telemetry does
    config = put(saver, 0)
    turn = saver._engine.turns.take(saver._engine.address("t").keys.name)
    tasks = [asyncio.create_task(saver.aput_writes(config, [("x", n)], f"{n}")) for n in range(3)]
    await asyncio.sleep(0.01)
    tasks[0].cancel()
    saver._engine.turns.end(saver._engine.address("t").keys.name, turn)
    done = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 20)
    assert [type(each) for each in done] == [asyncio.CancelledError, type(None), type(None)]
    assert len((await saver.aget_tuple(at("t"))).pending_writes) == 2
    assert saver._engine.turns._queues == {}


async def test_a_sync_write_on_the_event_loop_does_not_wait_for_ever(
    saver: RedisSaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "AWAIT_SECONDS", 0.05)
    config = put(saver, 0)
    await saver.aget_tuple(config)
    task = asyncio.create_task(saver.aput_writes(config, [("x", 1)], "async"))
    await asyncio.sleep(0)  # it has its turn, and waits for the server
    assert saver._engine.turns._queues
    saver.put_writes(config, [("x", 2)], "sync")
    await task
    assert len(saver.get_tuple(at("t")).pending_writes) == 2


async def test_a_writer_that_stands_still_is_passed_over(saver: RedisSaver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "AWAIT_SECONDS", 0.05)
    config, name = put(saver, 0), saver._engine.address("t").keys.name
    for write in (
        lambda: saver.aput_writes(config, [("x", 1)], "async"),
        lambda: asyncio.to_thread(saver.put_writes, config, [("x", 1)], "sync"),
    ):
        saver._engine.turns.take(name)  # as by a task of an event loop that was stopped
        await asyncio.gather(*(write() for _ in range(3)))
        assert saver._engine.turns._queues == {}


@each_key
def test_removals_forks_copies_and_late_writes_keep_the_statement_true(saver: RedisSaver, there: Server) -> None:
    for thread in ("t", "u"):
        for n in range(10):
            config = put(saver, n, thread=thread, run_id=f"r{n % 2}")
            put(saver, n, "sub:1", thread=thread, parents={"": IDS[n]}, run_id=f"r{n % 2}")
            put(saver, n, "remembers", thread=thread, parents={"": IDS[n]}, run_id=f"r{n % 2}")
            saver.put_writes(config, [("x", n)], "task")
    saver.put_writes(at("t", "", IDS[2]), [("x", "late")], "late")
    saver.copy_thread("t", "copy")
    saver.rollback("copy", IDS[7], mode="truncate")
    saver.rollback("copy", IDS[3], mode="fork")
    saver.prune(["t"], keep_last=3)
    saver.delete_for_runs(["r1"])
    saver.prune(["u"])
    for thread in ("t", "u", "copy"):
        assert list(saver.verify(thread)) == []
        found = list(saver.list(at(thread, None)))
        assert found
        for each in found:
            saver.put_writes(each.config, [("x", "again")], "one more")
        assert list(saver.verify(thread)) == []
    frozen = {name[1:] for name in there.raw.hkeys(there.keys.hash) if name[:1] == b"F"}
    assert frozen <= {name[1:] for name in there.raw.hkeys(there.keys.hash) if name[:1] == b"C"}
    saver.delete_thread("t")
    assert saver.get_tuple(at("t")) is None
    for n in range(10, 13):  # a new run
        made = checkpoint({"x": n}, id=IDS[n])
        config = saver.put(at("t", "", IDS[n - 1] if n > 10 else None), made, metadata(), made["channel_versions"])
        saver.put_writes(config, [("x", n)], "task")
    assert saver.get_tuple(at("t")).checkpoint["id"] == IDS[12]
    assert list(saver.verify()) == []


def test_a_subgraph_that_goes_on_where_the_clock_is_behind(saver: RedisSaver) -> None:
    put(saver, 9, "call:1")
    for n in range(10, 16):
        put(saver, n)
    put(saver, 3, "call:1")
    assert saver.get_tuple(at("t", "call:1")).checkpoint["id"] == IDS[9]
    assert saver.get_tuple(at("t", "call:1", IDS[9])) is not None
    assert len(list(saver.list(at("t", None)))) == 8
    assert list(saver.verify("t")) == []


def test_a_checkpoint_that_its_writes_overtook(saver: RedisSaver) -> None:
    chat(saver, 2)
    saver.put_writes(at("t", "", IDS[2]), [("x", "early")], "task")
    put(saver, 2)
    assert saver.get_tuple(at("t")).pending_writes == [("task", "x", "early")]
    saver.put_writes(at("t", "", IDS[9]), [("x", "early")], "task")
    for n in range(3, 10):
        put(saver, n)
    assert saver.get_tuple(at("t")).pending_writes == [("task", "x", "early")]
    assert list(saver.verify("t")) == []


def test_a_graph_asks_is_answered_and_is_taken_back(make: Callable[..., RedisSaver]) -> None:
    class State(TypedDict):
        log: Annotated[list[str], lambda old, new: [*old, *new]]

    def ask(state: State) -> Any:
        return {"log": [interrupt("sure?")]}

    def build(saver: RedisSaver) -> Any:
        sub = StateGraph(State).add_node("ask", ask).add_edge(START, "ask").compile()
        built = StateGraph(State).add_node("first", lambda state: {"log": ["first"]}).add_node("sub", sub)
        return built.add_edge(START, "first").add_edge("first", "sub").compile(checkpointer=saver)

    config = {"configurable": {"thread_id": "t"}}
    graph = build(make())
    graph.invoke({"log": []}, config)
    asked = graph.get_state(config).config["configurable"]["checkpoint_id"]
    for answer in ("yes", "no"):
        graph = build(make())
        assert graph.invoke(Command(resume=answer), config)["log"][-1] == answer
        make().rollback("t", asked, mode="truncate")
    assert len(list(graph.get_state_history(config))) == 3
    assert list(make().verify("t")) == []


# --- turning it on and off, and mending ---


def test_a_saver_without_freshness_does_not_write_where_there_is_a_statement(
    make: Callable[..., RedisSaver], saver: RedisSaver, there: Server
) -> None:
    config = chat(saver, 3)
    before, other = there.raw.hgetall(there.keys.hash), make(freshness=False)
    for write in (
        lambda: put(other, 3),
        lambda: other.put_writes(config, [("x", 1)], "task"),
        lambda: other.prune(["t"]),
        lambda: other.rollback("t", IDS[0]),
        lambda: other.rollback("t", IDS[0], mode="truncate"),
    ):
        with pytest.raises(InvalidConfigError, match="freshness"):
            write()
    assert there.raw.hgetall(there.keys.hash) == before
    assert other.get_tuple(at("t")) is not None
    there.set(there.field(b"C", 1), (before[there.field(b"C", 1)])[:-1] + b"?")
    before = there.raw.hgetall(there.keys.hash)
    with pytest.raises(InvalidConfigError, match="freshness"):
        list(other.repair("t", drop_unreadable=True))
    assert there.raw.hgetall(there.keys.hash) == before


def test_a_write_on_its_way_while_somebody_turns_freshness_on(
    make: Callable[..., RedisSaver], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = chat(make(freshness=False), 2)
    turning, other = make(accept_unkeyed=True), make(accept_unkeyed=True)
    evalsha, replies = turning.client.evalsha, list[bytes]()

    def interrupted(*arguments: Any) -> Any:
        reply = evalsha(*arguments)
        replies.append(reply[0])
        if reply[0] == b"stated" and replies.count(b"stated") == 1:
            assert other.rekey(["t"]) == 1
        return reply

    monkeypatch.setattr(turning.client, "evalsha", interrupted)
    turning.put_writes(config, [("x", 1)], "task")
    assert replies.count(b"stated") > 1
    assert len(make().get_tuple(config).pending_writes) == 2
    assert list(make().verify("t")) == []


def test_a_write_that_changes_nothing_beside_a_copy(saver: RedisSaver, monkeypatch: pytest.MonkeyPatch) -> None:
    """It changes the statement, which must be that of what was copied."""
    config = chat(saver, 5)
    read, done = copying.read_fields, list[None]()

    def reading(*arguments: Any) -> Any:
        if not done:  # the names of the fields are known by now
            done.append(None)
            for _ in range(3):
                put(saver, 4)
        return (yield from read(*arguments))

    monkeypatch.setattr(copying, "read_fields", reading)
    saver.copy_thread("t", "u")
    assert list(saver.verify("u")) == []
    assert saver.get_tuple(at("u")).checkpoint["id"] == config["configurable"]["checkpoint_id"]


@each_key
def test_rekey_turns_it_on_and_off(make: Callable[..., RedisSaver], there: Server) -> None:
    without = make(freshness=False)
    config = chat(without, 4)
    strict, turning = make(), make(accept_unkeyed=True)
    for call in (
        lambda: strict.get_tuple(at("t")),
        lambda: list(strict.list(at("t"))),
        lambda: strict.put_writes(config, [("x", 1)], "task"),
        lambda: strict.rekey(["t"]),
        lambda: strict.copy_thread("t", "u"),
    ):
        with pytest.raises(CheckpointCorruptError, match="has no statement"):
            call()
    assert turning.get_tuple(at("t")) is not None
    turning.put_writes(config, [("x", 1)], "while turning")
    put(turning, 4)
    assert turning.rekey() == 1
    assert turning.rekey() == 0
    assert [found.checkpoint["id"] for found in strict.list(at("t"))] == IDS[4::-1]
    assert list(strict.verify("t")) == []
    put(strict, 5)
    assert without.rekey() == 1
    assert not {name[:1] for name in there.raw.hkeys(there.keys.hash)} & {b"Z", b"F"}
    put(without, 6)
    assert list(without.verify("t")) == []


def test_repair_accepts_what_is_there_only_if_it_may_drop(saver: RedisSaver, there: Server) -> None:
    chat(saver, 6)
    there.set(there.field(b"W", 5), None)
    there.set(there.field(b"F", 1), None)
    assert ("replayed", False) in {(each.kind, each.repairable) for each in saver.verify("t")}
    list(saver.repair("t"))
    assert {each.kind for each in saver.verify("t")} == {"replayed"}
    assert {each.kind for each in saver.repair("t", drop_unreadable=True)} == {"replayed"}
    assert list(saver.verify("t")) == []
    assert saver.get_tuple(at("t")).pending_writes == []
    saver.get_tuple(at("t", "", IDS[1]))
    put(saver, 6)


def test_a_call_that_is_repeated_after_a_lost_reply_changes_nothing_more(
    saver: RedisSaver, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = chat(saver, 2)
    evalsha = saver.client.evalsha

    def twice(*arguments: Any) -> Any:
        evalsha(*arguments)
        return evalsha(*arguments)

    monkeypatch.setattr(saver.client, "evalsha", twice)
    put(saver, 2)
    saver.put_writes(config, [("x", 1), ("__resume__", "yes")], "task")
    saver.put_writes(config, [("x", 1), ("__resume__", "no")], "task")
    saver.rollback("t", IDS[0])
    saver.rollback("t", IDS[0], mode="truncate")
    assert list(saver.verify("t")) == []


# --- the witness ---


async def test_the_witness_is_told_in_order_outside_of_the_event_loop(make: Callable[..., RedisSaver]) -> None:
    told: list[tuple[str, int, bytes, bool]] = []
    loop_thread = threading.get_ident()
    saver = make(witness=lambda *what: told.append((*what, threading.get_ident() == loop_thread)))
    config = await asyncio.to_thread(chat, saver, 2)
    await asyncio.gather(*(saver.aput_writes(config, [("x", n)], f"{n}") for n in range(5)))
    saver.prune(["t"])
    revisions = [revision for _, revision, *_ in told]
    assert revisions == list(range(revisions[0], revisions[0] + 10))
    assert not any(in_loop for *_, in_loop in told[:-1])
    assert (told[-1][1], told[-1][2]) == await saver.astatement("t")


def test_a_witness_that_raises_says_that_the_write_is_done(make: Callable[..., RedisSaver]) -> None:
    def witness(*what: object) -> None:
        raise OSError("the ledger is away")

    saver = make(witness=witness)
    with pytest.raises(WitnessError, match=r"the ledger is away.* is stored"):
        put(saver, 0)
    assert saver.get_tuple(at("t")) is not None


def test_options_that_do_not_go_together() -> None:
    with pytest.raises(ValueError, match="needs a key"):
        RedisSaver(freshness=True)
    with pytest.raises(ValueError, match="freshness=True"):
        RedisSaver(integrity_key=KEY, witness=print)
    with pytest.raises(TypeError, match="must be a function"):
        RedisSaver(integrity_key=KEY, freshness=True, witness=1)  # type: ignore[arg-type]


def test_copying_verifies_the_statement(saver: RedisSaver, there: Server) -> None:
    chat(saver, 4)
    there.set(there.field(b"W", 1), None)
    for call in (lambda: saver.copy_thread("t", "u"), lambda: saver.prune(["t"])):
        with pytest.raises(CheckpointCorruptError, match="replayed or removed"):
            call()
    with pytest.raises(ThreadNotFoundError):
        saver.copy_thread("u", "v")
    assert ThreadKeys(saver._engine.settings.prefix, b"u").name == b"u"
