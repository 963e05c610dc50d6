"""A stored thread to damage, and what reading it then gives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from langgraph.checkpoint.serde.types import INTERRUPT, RESUME
from langgraph.types import Interrupt
from shapes import at, checkpoint, id_of, metadata, plain, words

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import CheckpointerError
from langgraph_redis_state.storage.keys import ThreadKeys

IDS = [f"1f0a0000-0000-6000-8000-00000000000{n}" for n in range(9)]


@dataclass
class Stored:
    """A thread on the server, what it must read as, and the means to damage and to restore it."""

    saver: RedisSaver
    client: Any
    prefix: str
    thread: str
    truth: dict[tuple[str, str], Any] = field(default_factory=dict)
    fields: dict[bytes, bytes] = field(default_factory=dict)
    dumps: list[Any] = field(default_factory=list)

    @property
    def keys(self) -> ThreadKeys:
        return ThreadKeys(self.prefix, self.thread.encode())

    def put(self, ns: str, id: str, values: dict[str, Any], parent: str | None = None, **more: Any) -> Any:
        made = checkpoint(values, id=id)
        return self.saver.put(at(self.thread, ns, parent), made, metadata(**more), made["channel_versions"])

    def freeze(self) -> Stored:
        """From here on `truth` is what must be read, and `restore` comes back to it."""
        for found in self.saver.list(at(self.thread, None)):
            self.truth[(found.config["configurable"]["checkpoint_ns"], id_of(found.config))] = plain(found)
        self.fields = self.client.hgetall(self.keys.hash)
        self.dumps = [self.client.dump(key) for key in self.keys.all[:2]]
        return self

    def restore(self) -> None:
        for key, dump in zip(self.keys.all[:2], self.dumps, strict=True):
            self.client.restore(key, 0, dump, replace=True)

    def hset(self, name: bytes, content: bytes) -> None:
        self.client.hset(self.keys.hash, name, content)

    def readers(self) -> list[Callable[[], None]]:
        """Every way to read the whole thread, each comparing with the truth."""

        def one_by_one() -> None:
            for (ns, id), expected in self.truth.items():
                assert plain(self.saver.get_tuple(at(self.thread, ns, id))) == expected

        def newest() -> None:
            for space in {ns for ns, _ in self.truth}:
                expected = max(id for ns, id in self.truth if ns == space)
                assert plain(self.saver.get_tuple(at(self.thread, space))) == self.truth[(space, expected)]

        def listed() -> None:
            found = [plain(each) for each in self.saver.list(at(self.thread, None))]
            assert found == list(self.truth.values())

        return [one_by_one, newest, listed]


def outcome(read: Callable[[], None]) -> CheckpointerError | None:
    """None if everything was as it was written, else the error of this package. Anything else fails the test."""
    try:
        read()
    except CheckpointerError as error:
        return error
    return None


def build_small(saver: RedisSaver, client: Any, prefix: str) -> Stored:
    """Two namespaces, inline values only, writes without references: small enough to damage every byte."""
    made = Stored(saver, client, prefix, "small")
    made.put("", IDS[0], {"n": 1}, run_id="run a")
    child = made.put("", IDS[1], {"n": 2}, IDS[0], run_id="run a")
    made.put("sub:1", IDS[2], {"m": "inline"}, parents={"": IDS[1]})
    saver.put_writes(child, [("n", 3), (INTERRUPT, [Interrupt("why?", id="i")])], "task 1", "~path")
    saver.put_writes(child, [(RESUME, ["yes"])], "task 2")
    return made.freeze()


def build_large(saver: RedisSaver, client: Any, prefix: str) -> Stored:
    """Pages (more than 24 references), chunks, sliced values, writes with references, several namespaces."""
    made = Stored(saver, client, prefix, "large")
    messages = [words(n, 300) for n in range(40)]
    made.put("", IDS[0], {"messages": messages, "blob": words(99, 200).encode(), "n": 1})
    child = made.put("", IDS[1], {"messages": [*messages, "one more"], "n": 2}, IDS[0])
    made.put("sub:1", IDS[2], {"messages": messages[:5], "long": [words(7, 400)]}, parents={"": IDS[1]})
    made.put("beside", IDS[3], {"n": 3})
    saver.put_writes(child, [("long", words(8, 400)), ("short", 1)], "task 1")
    saver.put_writes(at("large", "sub:1", IDS[2]), [("pages", [words(100 + n, 300) for n in range(34)])], "task 2")
    frozen = made.freeze()
    kinds = {name[:1] for name in frozen.fields}
    assert kinds == {b"C", b"W", b"D", b"P", b"S"}
    return frozen
