"""A small record from elsewhere that claims much is refused before memory is taken: sizes are checked before anything is
inflated, resolved or joined. Counted by tracemalloc, and by the limit that the system sets to a process."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ormsgpack
import pytest
from shapes import at, checkpoint, id_of, metadata, words
from soak import rare

from langgraph_redis_state import AgentCheckpointer, RedisSaver, RedisStatePersistence
from langgraph_redis_state.errors import CheckpointCorruptError, SerializationError
from langgraph_redis_state.storage import records
from langgraph_redis_state.storage.bodies import LOGICAL_MAX
from langgraph_redis_state.storage.chunks import PAGE_LIMIT
from langgraph_redis_state.storage.codec import BODY_MAX, CompressionType, digest, pack
from langgraph_redis_state.storage.keys import ThreadKeys
from langgraph_redis_state.storage.records import STAMP, WRITE, References, packed_id, parsed, seal, stamp, write_marker
from langgraph_redis_state.storage.thread_fields import joined_writes

CHUNK = b"\xc6\x00\x03\xff\xfb" + b"x" * (256 * 1024 - 5)
NAME = digest(CHUNK)
MEMORY = 120_000_000


def seal_of(saver: Any) -> Any:
    """How this saver seals a thread."""
    return saver._engine.settings.keyring.seal(b"", b"")


class Planter:
    """Puts a sound checkpoint, then in its place a record of its own that verifies."""

    def __init__(self, saver: RedisSaver, raw: Any, prefix: str, thread: str = "t") -> None:
        self.saver, self.raw, self.keys = saver, raw, ThreadKeys(prefix, thread.encode())
        self.target = saver._engine.address(thread)

    def put(self) -> Any:
        self.config = self.saver.put(at("t"), checkpoint({"a": "sound"}), metadata(), {"a": 1})
        self.saver.put_writes(self.config, [("a", "sound")], "task")
        return self.config

    def chunk(self) -> None:
        self.raw.hset(self.keys.hash, b"D" + NAME, pack(CHUNK, CompressionType.LZ4))

    def page(self, digests: bytes) -> bytes:
        self.raw.hset(self.keys.hash, b"P" + digest(digests), digests)
        return digest(digests)

    def checkpoint(self, references: References, body: Any, **declared: int) -> None:
        """`body`: bytes, or channels as they stand in it."""
        field = b"C\0" + id_of(self.config).encode()
        place = self.target.place(b"C", b"", field[2:])
        old = self.raw.hget(self.keys.hash, field)
        header, plain = parsed(old, place)[0], self.rest(old, place)
        if not isinstance(body, bytes):
            body = ormsgpack.packb([plain[0], plain[1], body])
        declared["logical"] = declared.get("logical", 0) + len(plain[1])
        by = seal_of(self.saver)
        tail = packed_id(b"") * 4
        packed = pack(body, CompressionType.LZ4)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(records, "LOGICAL_MAX", 1 << 40)
            made = seal(by, place, references, tail, packed, flags=header.flags, depth=0, **declared)
        self.raw.hset(self.keys.hash, field, stamp(header.created_at, header.version, header.new_bytes, place) + made)

    def rest(self, old: bytes, place: Any) -> Any:
        from langgraph_redis_state.storage.records import open_record

        return ormsgpack.unpackb(open_record(old, place, seal_of(self.saver))[1])

    def writes(self, number: int, references: References, content: Any, size: int, **declared: int) -> None:
        field = b"W\0" + id_of(self.config).encode()
        place = self.target.place(b"W", b"", field[2:])
        made_all = []
        for n in range(number):
            marker, body = write_marker(n, b"task"), ormsgpack.packb(["", "a", "msgpack", content, size])
            by, packed = seal_of(self.saver), pack(body, CompressionType.LZ4)
            made = seal(by, place, references, marker, packed, flags=WRITE, depth=0, **declared)
            made_all.append(stamp(1, 1, len(made), place, marker) + made)
        self.raw.hset(self.keys.hash, field, joined_writes(made_all))


@pytest.fixture
def plant(saver: RedisSaver, raw: Any, prefix: str) -> Planter:
    planter = Planter(saver, raw, prefix)
    planter.put()
    planter.chunk()
    return planter


@contextmanager
def little_memory() -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < MEMORY
    finally:
        tracemalloc.stop()


def pages_of(plant: Planter, number: int, each: int) -> References:
    page = plant.page(NAME * each)
    return References({}, (page,) * number, ())


def many_loose(plant: Planter) -> None:
    """60,000 references to one chunk, 5 GiB, and sizes that say so."""
    size = 20_000 * len(CHUNK)
    plant.checkpoint(References({}, (), (NAME,) * 20_000), [["a", "msgpack", [20_000], size]], logical=size, chunked=size)


def many_loose_that_say_little(plant: Planter) -> None:
    plant.checkpoint(References({}, (), (NAME,) * 20_000), [["a", "msgpack", [20_000], 70_000]], logical=70_000, chunked=70_000)


def many_pages(plant: Planter) -> None:
    references = pages_of(plant, 20_000, 60)
    plant.checkpoint(references, [["a", "msgpack", [1_200_000], 2**29]], logical=2**29, chunked=2**29)


def large_pages(plant: Planter) -> None:
    references = pages_of(plant, 20_000, PAGE_LIMIT * 20)
    plant.checkpoint(references, [["a", "msgpack", [25_600_000], 2**30 - 500]], logical=2**30 - 500, chunked=2**30 - 500)


def many_channels(plant: Planter) -> None:
    channels = [[f"{n}", "msgpack", [1000], len(CHUNK) * 1000] for n in range(20)]
    plant.checkpoint(References({}, (), (NAME,) * 20_000), channels, logical=2**29, chunked=2**29)


def segments_of_absurd_counts(plant: Planter) -> None:
    plant.checkpoint(References({}, (), (NAME,)), [["a", "msgpack", [2**62, 2**62], 2**30]], logical=2**29, chunked=2**29)


def negative_counts(plant: Planter) -> None:
    channels = [["a", "msgpack", [20_000], 2**20], ["b", "msgpack", [-19_999], 0]]
    plant.checkpoint(References({}, (), (NAME,)), channels, logical=2**20, chunked=2**20)


def one_channel_many_times(plant: Planter) -> None:
    channels = [["a", "msgpack", [1], len(CHUNK)]] * 2
    plant.checkpoint(References({}, (), (NAME,) * 2), channels, logical=2 * len(CHUNK), chunked=2 * len(CHUNK))


def a_body_of_absurd_length(plant: Planter) -> None:
    plant.checkpoint(References({}, (), ()), b"\x93\xa1x\xc4\x00\xdd\x7f\xff\xff\xff", logical=0, chunked=0)


def a_body_of_empty_arrays(plant: Planter) -> None:
    plant.checkpoint(
        References({}, (), ()), b"\x93\xa1x\xc4\x00\xdd\x00\x4c\x4b\x40" + b"\x90" * 5_000_000, logical=0, chunked=0
    )


def a_body_nested_deeply(plant: Planter) -> None:
    plant.checkpoint(References({}, (), ()), b"\x93\xa1x\xc4\x00" + b"\x91" * 100_000, logical=0, chunked=0)


CHECKPOINTS: list[Any] = [
    *(many_loose, many_loose_that_say_little, rare(many_pages), rare(large_pages), rare(many_channels)),
    *(segments_of_absurd_counts, negative_counts, one_channel_many_times, a_body_of_absurd_length),
    *(a_body_of_empty_arrays, a_body_nested_deeply),
]


@pytest.mark.parametrize("planted", CHECKPOINTS, ids=lambda each: each.__name__)
def test_a_checkpoint_that_claims_much_is_refused(
    planted: Callable[[Planter], None], plant: Planter, prefix: str, url: str
) -> None:
    planted(plant)
    config = plant.config
    with RedisSaver(url, prefix=prefix) as reader, little_memory():
        with pytest.raises(CheckpointCorruptError):
            reader.get_tuple(config)
        with pytest.raises(CheckpointCorruptError):
            list(reader.list(at("t")))
        others: list[Callable[[], Any]] = [
            lambda: list(reader.list(at("t"), filter={"step": 0})),
            lambda: reader.diff("t", id_of(config), id_of(config)),
            lambda: reader.rollback("t", id_of(config)),
            lambda: reader.put(config, checkpoint({}, {"a": 1}), metadata(), {}),
            lambda: reader.copy_thread("t", "copy"),
            lambda: reader.prune(["t"]),
        ]
        for each in others:
            with suppress(CheckpointCorruptError):
                each()
        assert any(each.kind == "damaged" for each in reader.verify("t"))
        assert any(each.kind == "damaged" for each in reader.repair("t", drop_unreadable=True))
        assert not list(reader.verify("t"))


ONE = (NAME,)
WRITES: dict[str, tuple[tuple[bytes, ...], Any, int, int]] = {
    "many loose": (ONE * 20_000, [20_000], 2**29, 2**29),
    "many loose that say little": (ONE * 20_000, [1], len(CHUNK), len(CHUNK)),
    "many pages": ((), [1_200_000], 2**29, 2**29),
    "one chunk that is many": (ONE, [1], 2**29, len(CHUNK)),
    "an absurd count": (ONE, [2**62], 2**29, 2**29),
    "a plain value that is large": ((), b"x", 2**29, 2**29),
}


@pytest.mark.parametrize("kind", [rare(kind) if kind == "many pages" else kind for kind in WRITES])
def test_pending_writes_that_claim_much_are_refused(plant: Planter, prefix: str, url: str, kind: str) -> None:
    loose, content, size, declared = WRITES[kind]
    references = pages_of(plant, 20_000, 60) if kind == "many pages" else References({}, (), loose)
    plant.writes(3, references, content, size, logical=declared, chunked=declared if isinstance(content, list) else 0)
    with RedisSaver(url, prefix=prefix) as reader:
        for read in (reader.get_tuple, lambda config: list(reader.list(config))):
            with little_memory(), pytest.raises(CheckpointCorruptError):
                read(plant.config)
        with little_memory():
            assert any(each.kind == "damaged" for each in reader.verify("t"))


async def test_the_async_methods_refuse_it_too(plant: Planter, prefix: str, url: str) -> None:
    many_pages(plant)
    async with RedisSaver(url, prefix=prefix) as reader:
        with little_memory():
            with pytest.raises(CheckpointCorruptError):
                await reader.aget_tuple(at("t"))
            with pytest.raises(CheckpointCorruptError):
                await reader.aget_delta_channel_history(
                    config=reader.put(plant.config, checkpoint(), metadata(), {}), channels=["a"]
                )


@pytest.mark.parametrize("kind", [RedisStatePersistence, AgentCheckpointer])
def test_states_that_claim_much_are_refused(kind: Any, url: str, prefix: str, raw: Any) -> None:
    with kind(url, prefix=prefix) as states:
        save = states.save_state if kind is AgentCheckpointer else states.save_with_metadata
        save("t", {"files": {"a": words(1, 50)}}) if kind is AgentCheckpointer else save({"a": words(1, 50)}, "t")
        with RedisSaver(url, prefix=prefix) as saver:
            plant = Planter(saver, raw, prefix)
            plant.config = saver.get_tuple(at("t")).config
            plant.chunk()
            references = pages_of(plant, 20_000, 60)
            plant.checkpoint(references, [["state", "msgpack", [1_200_000], 2**29]], logical=2**29, chunked=2**29)
    with kind(url, prefix=prefix) as states, little_memory(), pytest.raises(CheckpointCorruptError):
        (states.load_state if kind is AgentCheckpointer else states.load_with_metadata)("t")


def test_a_body_inflates_to_its_limit_at_most(plant: Planter, prefix: str, url: str) -> None:
    field = b"C\0" + id_of(plant.config).encode()
    place = plant.target.place(b"C", b"", field[2:])
    claim = b"\1" + (BODY_MAX + 1).to_bytes(4, "big") + bytes(BODY_MAX // 200)
    by, none = seal_of(plant.saver), References({}, (), ())
    made = seal(by, place, none, packed_id(b"") * 4, claim, flags=0, depth=0, logical=0, chunked=0)
    plant.raw.hset(plant.keys.hash, field, stamp(1, 1, 1, place) + made)
    assert len(made) > STAMP
    with RedisSaver(url, prefix=prefix) as reader, little_memory(), pytest.raises(CheckpointCorruptError, match="refused"):
        reader.get_tuple(at("t"))


def test_what_no_reader_would_take_is_not_written(saver: RedisSaver) -> None:
    place = saver._engine.address("t").place(b"C", b"", b"1")
    by = seal_of(saver)
    with pytest.raises(SerializationError, match="too large"):
        seal(by, place, References({}, (), ()), b"", b"", flags=0, depth=0, logical=LOGICAL_MAX + 1, chunked=0)


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS limits memory on Linux only")
def test_a_process_of_little_memory_survives_it(plant: Planter, prefix: str, url: str) -> None:
    many_loose(plant)
    script = f"""
import resource
from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import CheckpointCorruptError
with RedisSaver({url!r}, prefix={prefix!r}) as saver:
    saver.ping()
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 200_000_000,) * 2)
    try:
        saver.get_tuple({at("t")!r})
    except CheckpointCorruptError as error:
        print("refused")
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "refused\n", done.stderr
