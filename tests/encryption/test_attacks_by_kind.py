"""Every kind of stored field and of index member, attacked in every way, under each kind of key: a typed error before anything
is deserialized, or the truth. What is not noticed on reading, `verify` finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langgraph.checkpoint.serde.types import RESUME
from shapes import at, checkpoint, metadata, plain
from soak import LEVEL, rare
from whole import KINDS, Watching, build, kind_of, told

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import CheckpointCorruptError, CheckpointLostError, LayoutError

KEY, OLD, NAME_KEY = bytes(range(32)), bytes(range(1, 33)), bytes(range(32, 64))
REFUSED = (CheckpointCorruptError, CheckpointLostError, LayoutError)


def of_thread(thread: str) -> bytes:
    return thread.encode().ljust(32, b".")


SAVERS: dict[str, dict[str, Any]] = {
    "no key": {},
    "signed": {"integrity_key": KEY},
    "encrypted": {"encryption_key": KEY},
    "names hidden": {"encryption_key": KEY, "name_key": NAME_KEY},
    "a key for each thread": {"encryption_key": of_thread},
    "rotating": {"encryption_key": [KEY, OLD]},
    "turned off": {"encryption_key": OLD, "decrypt_only": True},
    "fresh": {"encryption_key": KEY, "freshness": True},
}
OFTEN = ("signed", "names hidden", "rotating", "fresh")
SHARE = 1 if LEVEL else len(OFTEN)
"""Of the attacks each saver meets one in so many, another one each, so that all are met by some saver."""


def hash_of(saver: RedisSaver, thread: str) -> bytes:
    return saver._engine.address(thread).keys.hash


class Target:
    """A stored thread, what its fields are, and what is read of it while it is sound."""

    def __init__(self, saver: RedisSaver, raw: Any, thread: str) -> None:
        self.saver, self.raw, self.thread = saver, raw, thread
        self.watching: Watching = saver.serde  # type: ignore[assignment]
        keys = saver._engine.address(thread).keys
        self.names, self.hash, self.index = keys.names, keys.hash, keys.all[1]
        self.stored: dict[bytes, bytes] = raw.hgetall(self.hash)
        self.members: list[tuple[bytes, float]] = raw.zrange(self.index, 0, -1, withscores=True)
        self.fields = {self.names.field_of(name): content for name, content in self.stored.items()}
        self.fresh = b"Z" in self.fields
        assert {kind_of(name) for name in self.fields} == KINDS | ({b"Z", b"F"} if self.fresh else set())
        self.watching.loaded.clear()
        self.truth = told(saver, thread)
        self.allowed = set(self.watching.loaded)
        assert not list(saver.verify(thread))

    def restore(self) -> None:
        with self.raw.pipeline() as pipe:
            pipe.delete(self.hash, self.index)
            pipe.hset(self.hash, mapping=self.stored)
            pipe.zadd(self.index, dict(self.members))
            pipe.expire(self.hash, 9_999)
            pipe.expire(self.index, 9_999)
            pipe.execute()

    def set(self, changes: dict[bytes, bytes | None]) -> None:
        for name, content in changes.items():
            stored = self.names.field(name)
            self.raw.hdel(self.hash, stored) if content is None else self.raw.hset(self.hash, stored, content)

    def check(self, label: object, finds: bool = True) -> None:
        """Refused, or true. `finds`: if it is not refused, `verify` finds something."""
        self.watching.loaded.clear()
        try:
            found = told(self.saver, self.thread)
        except REFUSED:
            refused = True
        else:
            assert found == self.truth, label
            refused = False
        assert set(self.watching.loaded) <= self.allowed, label
        findings = [each for each in self.saver.verify(self.thread) if each.kind not in ("expiry", "bucket")]
        assert findings or not finds, (label, refused)
        assert set(self.watching.loaded) <= self.allowed, label


def some(fields: dict[bytes, bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Up to three fields of each kind: the last, the first, and one between. One in the fast tests."""
    for kind in sorted(set(map(kind_of, fields))):
        names = sorted(name for name in fields if kind_of(name) == kind)
        for name in list(dict.fromkeys([names[-1], names[0], names[len(names) // 2]]))[: 3 if LEVEL else 1]:
            yield kind, name


def positions(content: bytes) -> list[int]:
    """All of a small field; of a large one its beginning, its end, and some between. Three in the fast tests."""
    size = len(content)
    if not LEVEL:
        return sorted({0, size // 2, size - 1})
    return sorted({*range(min(size, 120 if size <= 120 else 22)), *range(0, size, size // 40 + 1), size - 1})


def attacks(own: dict[bytes, bytes], other: dict[bytes, bytes]) -> Iterator[tuple[tuple[Any, ...], dict[bytes, bytes | None]]]:
    """Labels, and the fields that change, None: dropped. `other`: the fields of another thread of the saver."""
    for kind, name in some(own):
        content = own[name]
        for position in positions(content):
            flipped = content[position] ^ 1 << position % 8
            yield (kind, "flipped", position), {name: content[:position] + bytes([flipped]) + content[position + 1 :]}
        for cut in dict.fromkeys((len(content) - 1, len(content) // 2, 1, 0)):
            yield (kind, "truncated", cut), {name: content[:cut]}
        yield (kind, "extended"), {name: content + b"\0"}
        yield (kind, "doubled"), {name: content * 2}
        alike = sorted(each for each in own if kind_of(each) == kind and own[each] != content)
        for there in dict.fromkeys(alike[:1] + alike[-1:]):
            yield (kind, "swapped", there), {name: own[there], there: content}
            yield (kind, "moved", there), {name: None, there: content}
            yield (kind, "planted", there), {there: content}
        for there, foreign in other.items():
            if kind_of(there) == kind and foreign != content:
                yield (kind, "from another thread", there), {name: foreign}
                break
        yield (kind, "dropped"), {name: None}
        ghost = {b"C": b"C\0ghost", b"H": b"H\0ghost", b"G": b"Gghost", b"D": b"D" + b"x" * 16, b"P": b"P" + b"x" * 16}
        if kind in ghost or kind == b"W list":
            yield (kind, "duplicated"), {ghost.get(kind, b"W\0ghost"): content}
        if kind in (b"W segment", b"W directory"):
            yield (kind, "duplicated"), {name[: name.rindex(b"\0") + 1] + b"ghost!": content}


REMOVED = {(b"W list", "dropped"), (b"W directory", "dropped"), (b"W directory", "from another thread")}
"""Attacks that reading does not notice without freshness: see `REPLAYS`. A directory is not signed, so that of a copy is an
older one."""

NEVER_FOUND = {(b"T", "dropped")}
"""`verify` finds nothing: a thread without settings is like any other. Nothing looks at field O, which says by which operation
a copy was made, but that operation."""


@pytest.mark.longer
@pytest.mark.parametrize("kind", [kind if kind in OFTEN else rare(kind) for kind in SAVERS])
def test_every_kind_of_field_is_attacked_in_every_way(url: str, prefix: str, raw: Any, kind: str) -> None:
    options = SAVERS[kind]
    first = {"encryption_key": OLD} if kind in ("rotating", "turned off") else options
    with RedisSaver(url, prefix=prefix, **first) as saver:
        build(saver, tasks=19)
        saver.copy_thread("t", "other")
    with RedisSaver(url, prefix=prefix, cache_bytes=0, serde=Watching(), **options) as saver:
        if kind in ("rotating", "turned off"):
            saver.tag("t", "good")
            saver.put_writes(saver.get_tuple(at("t", "beside")).config, [("n", "under the first key")], "task 20")
        target = Target(saver, raw, "t")
        other = {target.names.field_of(name): content for name, content in raw.hgetall(hash_of(saver, "other")).items()}
        offset = OFTEN.index(kind) % SHARE if kind in OFTEN else 0
        for label, changes in list(attacks(target.fields, other))[offset::SHARE]:
            if label[:2] in REMOVED and not target.fresh:
                continue
            target.set(changes)
            target.check(label, finds=label[0] != b"O" and label[:2] not in NEVER_FOUND)
            target.restore()
        assert told(saver, "t") == target.truth


def of_index(members: list[tuple[bytes, float]]) -> Iterator[tuple[str, Callable[[Any, bytes], Any]]]:
    for member, _ in members:
        yield f"{member!r} has moved", lambda raw, key, member=member: raw.zadd(key, {member: 1})
        yield f"{member!r} is cut", lambda raw, key, member=member: (raw.zrem(key, member), raw.zadd(key, {member[:-1]: 0}))
        yield f"{member!r} is gone", lambda raw, key, member=member: raw.zrem(key, member)
    for strange in (b"", b"C", b"C\0", b"Zoo", b"G", b"Gghost", b"A\0", b"C\0\xff", b"C\0" + b"9" * 36):
        yield f"{strange!r} is added", lambda raw, key, strange=strange: raw.zadd(key, {strange: 0})


@pytest.mark.parametrize("kind", [rare("no key"), rare("encrypted"), "names hidden"])
def test_an_index_that_is_forged_hides_checkpoints_and_shows_none_that_is_not_there(
    url: str, prefix: str, raw: Any, kind: str
) -> None:
    with RedisSaver(url, prefix=prefix, cache_bytes=0, serde=Watching(), **SAVERS[kind]) as saver:
        build(saver, tasks=17)
        target = Target(saver, raw, "t")
        newest, beside, _, listed, tags, _ = target.truth
        for label, attack in of_index(target.members):
            attack(raw, target.index)
            target.watching.loaded.clear()
            for read, allowed in (
                (lambda: [plain(saver.get_tuple(at("t")))], [newest, None]),
                (lambda: [plain(saver.get_tuple(at("t", "beside", beside["config"][2])))], [beside]),
                (lambda: [plain(each) for each in saver.list(at("t", None))], listed),
                (lambda: list(saver.tags("t").items()), list(tags.items())),
            ):
                try:
                    found = read()
                except REFUSED:
                    continue
                assert all(each in allowed for each in found), label
            assert set(target.watching.loaded) <= target.allowed, label
            kinds = {each.kind for each in saver.verify("t")}
            assert kinds & {"index", "lost", "unknown"}, label
            target.restore()
        raw.delete(target.index)
        assert told(saver, "t") == target.truth  # built anew from the hash


# --- what only freshness finds ---


Read = tuple[str, list[str], str]
"""The value of a channel, pending writes, and the first digit of what a tag names."""

Replay = Callable[[dict[bytes, bytes], dict[bytes, bytes]], dict[bytes, bytes | None]]


def older(name: bytes) -> Replay:
    return lambda before, after: {name: before[name]}


def mended(content: bytes) -> bytes:
    """A list of pending writes without the first, with its number mended."""
    sizes, position = [], 4
    while position < len(content):
        sizes.append(4 + int.from_bytes(content[position : position + 4], "big"))
        position += sizes[-1]
    entries = content[4 + sizes[0] :]
    return content[:1] + (len(sizes) - 1).to_bytes(3, "big") + entries


ROOT, WRITES = b"C\0" + b"1" * 36, b"W\0" + b"1" * 36
REPLAYS: dict[str, tuple[Replay, Read]] = {
    "an older record at its own place": (older(ROOT), ("before", ["yes", "more"], "1")),
    "an older list of pending writes": (older(WRITES), ("after", ["no"], "1")),
    "all pending writes dropped": (lambda before, after: {WRITES: None}, ("after", [], "1")),
    "one pending write dropped, their number mended": (
        lambda before, after: {WRITES: mended(after[WRITES])},
        ("after", ["more"], "1"),
    ),
    "an older tag": (older(b"Ggood"), ("after", ["yes", "more"], "0")),
    "the whole hash": (lambda before, after: {**dict.fromkeys(after), **before}, ("before", ["no"], "0")),
}
"""Attacks with bytes that were stored at the same place at some time, and what is then read without freshness, with any key.
docs/security.md says so under *Freshness*."""

READ_ANYWAY = {"an older tag", "the whole hash"}
"""Those that freshness does not find: a tag is no part of a statement, and a whole thread has the statement of its time."""


@pytest.mark.parametrize("kind", ["signed", "encrypted", "names hidden", "fresh"])
@pytest.mark.parametrize("replay", REPLAYS)
def test_what_was_stored_at_the_same_place_before_is_read_again_unless_freshness_is_on(
    url: str, prefix: str, raw: Any, kind: str, replay: str
) -> None:
    def put(id: str, values: dict[str, Any]) -> Any:
        made = checkpoint(values, id=id)
        return saver.put(at("t"), made, metadata(), made["channel_versions"])

    with RedisSaver(url, prefix=prefix, cache_bytes=0, **SAVERS[kind]) as saver:
        address = saver._engine.address("t")

        def fields() -> dict[bytes, bytes]:
            return {address.keys.names.field_of(name): content for name, content in raw.hgetall(address.keys.hash).items()}

        put("0" * 36, {"n": 0})
        config = put("1" * 36, {"n": "before"})
        saver.put_writes(config, [(RESUME, "no")], "task")
        saver.tag("t", "good", "0" * 36)
        before = fields()
        put("1" * 36, {"n": "after"})
        saver.put_writes(config, [(RESUME, "yes")], "task")
        saver.put_writes(config, [("n", "more")], "task 2")
        saver.tag("t", "good", "1" * 36)
        after = fields()
        attack, expected = REPLAYS[replay]
        for name, content in attack(before, after).items():
            stored = address.keys.names.field(name)
            raw.hdel(address.keys.hash, stored) if content is None else raw.hset(address.keys.hash, stored, content)
        if kind == "fresh" and replay not in READ_ANYWAY:
            with pytest.raises(CheckpointCorruptError, match="replayed or removed"):
                saver.get_tuple(at("t"))
            return
        found = saver.get_tuple(at("t"))
        writes = [value for _, _, value in found.pending_writes]
        read = found.checkpoint["channel_values"]["n"], writes, saver.tags("t")["good"][0]
        assert read == expected


def test_a_directory_that_is_dropped_leaves_the_list_alone_and_verify_finds_it(url: str, prefix: str, raw: Any) -> None:
    with RedisSaver(url, prefix=prefix, cache_bytes=0, encryption_key=KEY, serde=Watching()) as saver:
        build(saver, tasks=17)
        target = Target(saver, raw, "t")
        directory = next(name for name in target.fields if kind_of(name) == b"W directory")
        target.set({directory: None})
        found = told(saver, "t")[1]["writes"]
        assert 0 < len(found) < len(target.truth[1]["writes"])
        assert [each for each in target.truth[1]["writes"] if each in found] == found
        assert any(each.kind == "damaged" and "another number" in each.problem for each in saver.verify("t"))
