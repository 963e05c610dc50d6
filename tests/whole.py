"""A thread that has every kind of field, in a few kilobytes; all that is read of it, and who is asked to deserialize."""

from __future__ import annotations

from typing import Any

from audit import put
from conversations import told as graph
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from shapes import at, id_of, plain, words

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.storage.keys import segment_of

KINDS = {b"C", b"H", b"W list", b"W directory", b"W segment", b"D", b"P", b"G", b"S", b"T", b"O"}


def kind_of(field: bytes) -> bytes:
    """The kind of a field, as docs/layout.md tells them apart."""
    if field[:1] != b"W":
        return field[:1]
    segment = segment_of(field)
    return b"W list" if segment is None else b"W segment" if segment else b"W directory"


class Watching(JsonPlusSerializer):
    """Remembers what it was given to deserialize."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[tuple[str, bytes]] = []

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        self.loaded.append(data)
        return super().loads_typed(data)


def build(saver: RedisSaver, thread: str = "t", salt: str = "", tasks: int = 22) -> None:
    """A DeltaChannel whose ancestors were removed, a memory beside it with pages, pending writes of so many tasks, tags, a TTL
    of its own. It is a copy, so it also has the field O."""
    source = f"{thread} source"
    talk = graph(saver, 50)
    for n in range(2):
        talk.invoke({"log": [f"{salt} turn {n}"]}, at(source))
    saver.prune([source], keep_last=1)
    saver.tag(source, "good")
    values = {"pages": [words((salt, n), 50) for n in range(75)], "n": salt}
    beside = put(saver, at(source, "beside"), values, run_id=f"run {salt}")
    for n in range(tasks):
        saver.put_writes(beside, [("n", f"{salt} {n} {words((salt, n, 'w'), 8)}")], f"task {n}")
    saver.put_writes(beside, [("long", words((salt, "long"), 60))], "task 0")
    saver.tag(source, "inner", id_of(beside), checkpoint_ns="beside")
    saver.set_ttl(source, 9_999)
    saver.copy_thread(source, thread)
    saver.delete_thread(source)


def told(saver: RedisSaver, thread: str = "t") -> Any:
    """All that the verbs tell of a thread, as plain values."""
    newest, beside = saver.get_tuple(at(thread)), saver.get_tuple(at(thread, "beside"))
    deltas = saver.get_delta_channel_history(config=at(thread, "", id_of(newest.config)), channels=["log"]) if newest else None
    listed = [plain(each) for each in saver.list(at(thread, None))]
    heads = [(each.checkpoint_id, each.writes, str(each.problem or "")) for each in saver.heads([thread])]
    return plain(newest), plain(beside), deltas, listed, saver.tags(thread), heads
