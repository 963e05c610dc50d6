"""`RedisStatePersistence`: several programs at once, damage, and what states cost."""

from __future__ import annotations

import asyncio
import random
import re
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from audit import audit
from forks import forked
from shapes import state_calls
from soak import every, rare, times
from states import Make, loaded, numbers, thread

from benchmarks.states import SIZES, shares
from langgraph_redis_state import (
    CheckpointCorruptError,
    CheckpointerError,
    CheckpointLostError,
    EmbeddedServer,
    RedisSaver,
    RedisStatePersistence,
    SaverClosedError,
    SerializationError,
    ServerUnavailableError,
)
from langgraph_redis_state.effects import Script
from langgraph_redis_state.scripts.commands import PUT, REMOVE

# --- concurrency ------------------------------------------------------------------------------------------------------


def test_threads_that_save_one_state_lose_none(make: Make) -> None:
    states = make(max_versions=None)
    got: list[int | str] = []
    errors: list[BaseException] = []

    def save(who: int) -> None:
        try:
            for n in range(20):
                got.append(states.save_with_metadata({"who": who, "n": n}, "s").version)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=save, args=(who,)) for who in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not errors
    assert sorted(got) == list(range(1, 161))  # type: ignore[type-var]
    assert numbers(states, "s") == list(range(1, 161))
    contents = [loaded(states, "s", version) for version in range(1, 161, 13)]
    assert len({(each["who"], each["n"]) for each in contents}) == len(contents)


async def test_tasks_that_save_one_state_lose_none(url: str, namespace: str) -> None:
    async with RedisStatePersistence(url, namespace=namespace, max_versions=5) as states:
        saved = await asyncio.gather(*(states.asave_with_metadata({"n": n}, "s") for n in range(40)))
        assert sorted(each.version for each in saved) == list(range(1, 41))  # type: ignore[type-var]
        assert [each.version for each in await states.alist_versions("s")] == [36, 37, 38, 39, 40]


@pytest.mark.longer
@pytest.mark.parametrize("keys", [rare(3), 60])
@pytest.mark.parametrize("version", [None, 1])
def test_programs_that_push_out_or_replace_each_others_versions_leave_nothing(
    make: Make, raw: Any, keys: int, version: int | None
) -> None:
    stores, rounds = [make(max_versions=3) for _ in range(4)], times(10, 25, 25)
    errors: list[BaseException] = []

    def save(who: int) -> None:
        try:
            for n in range(rounds):
                fields = {f"k{k}": f"{who} {k} " * 60 for k in range(keys)}
                fields["k0"] = f"{who} {n} " * 60
                stores[who].save_with_metadata(fields, "s", version=version)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=save, args=(who,)) for who in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert not errors
    assert numbers(stores[0], "s") == ([4 * rounds - 2, 4 * rounds - 1, 4 * rounds] if version is None else [1])
    assert loaded(stores[1], "s")["k1"].split()[0] in "0123"
    audit(raw, stores[0]._engine.settings.prefix, "s", clean=True)


WORKER = """
who = "abcd"[number]
with RedisStatePersistence(sys.argv[1], namespace=sys.argv[2], max_versions=None) as states:
    saved = [states.save_with_metadata({"who": who, "n": n, "text": who * 500}, "s").version for n in range(15)]
os.write(1, f"{who} {' '.join(map(str, saved))}\\n".encode())
"""


def test_processes_that_save_one_state_lose_none(url: str, namespace: str, make: Make) -> None:
    workers = forked(4, "from langgraph_redis_state import RedisStatePersistence", WORKER, url, namespace)
    done = subprocess.run(workers, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    printed = {line[0]: line[1:].split() for line in done.stdout.splitlines()}
    assert sorted(printed) == [*"abcd"]
    assert sorted(int(version) for line in printed.values() for version in line) == list(range(1, 61))
    states = make(max_versions=None)
    assert numbers(states, "s") == list(range(1, 61))
    for who, line in printed.items():
        assert [loaded(states, "s", int(version))["n"] for version in line] == list(range(15))
        assert loaded(states, "s", int(line[-1]))["who"] == who


def repeating(
    store: RedisStatePersistence, monkeypatch: pytest.MonkeyPatch, between: Callable[[], Any], script: Script = PUT
) -> None:
    """Each such script arrives, its reply is lost, `between` happens, and the client sends it again, as redis-py does."""
    client = store._saver.client
    evalsha, busy = client.evalsha, threading.local()

    def twice(sha: bytes, *args: Any) -> Any:
        reply = evalsha(sha, *args)
        if getattr(busy, "on", False) or reply[0] != b"ok" or sha != script.sha:
            return reply
        busy.on = True
        try:
            between()
        finally:
            busy.on = False
        return evalsha(sha, *args)

    monkeypatch.setattr(client, "evalsha", twice)


@pytest.mark.parametrize("others", [0, 1, 3])
def test_a_command_repeated_after_a_lost_reply_makes_no_second_version(
    make: Make, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    states, other = make(), make()
    repeating(states, monkeypatch, lambda: [other.save_with_metadata({"other": 1}, "s") for _ in range(others)])
    assert states.save_with_metadata({"n": 1}, "s").version == 1
    assert states.save_with_metadata({"n": 2}, "s", version=1).version == 1
    expected = list(range(1, 2 * others + 2))
    assert numbers(states, "s") == expected
    assert loaded(states, "s", 1) == {"n": 2}


def test_a_version_whose_deletion_was_repeated_after_a_lost_reply_was_there(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = make()
    for n in (1, 2, 3):
        states.save_with_metadata({"n": n}, "s")
    assert states.delete_version("s", 3)  # from here on the server knows the script
    repeating(states, monkeypatch, lambda: None, REMOVE)
    assert states.delete_version("s", 1)
    assert not states.delete_version("s", 1)


# --- faults -----------------------------------------------------------------------------------------------------------


def test_every_flipped_byte_is_found(make: Make, raw: Any) -> None:
    states = make(cache_bytes=0)
    chosen = random.Random(5)
    truth = {
        f"k{n}": f"{chosen.getrandbits(1600):x}" for n in range(4)
    }  # in text that repeats, LZ4 can say one thing in two ways
    states.save_with_metadata(truth, "s")
    keys = thread(states, "s")
    for name, content in raw.hgetall(keys.hash).items():
        if name[:1] not in b"CD":
            continue
        for at in range(len(content)) if name[:1] == b"C" else chosen.sample(range(len(content)), 20):
            raw.hset(keys.hash, name, content[:at] + bytes([content[at] ^ 1 << chosen.randrange(8)]) + content[at + 1 :])
            with pytest.raises(CheckpointerError) as caught:
                states.load_with_metadata("s")
            assert "'s'" in str(caught.value)
            if name[:1] == b"D":
                assert isinstance(caught.value, CheckpointCorruptError)
        raw.hset(keys.hash, name, content)
    assert loaded(states, "s") == truth


def test_lost_parts_are_errors_and_not_empty_states(make: Make, raw: Any) -> None:
    states = make(cache_bytes=0)
    states.save_with_metadata({"text": "word " * 500}, "s")
    keys = thread(states, "s")
    chunk = next(name for name in raw.hkeys(keys.hash) if name[:1] == b"D")
    raw.hdel(keys.hash, chunk)
    with pytest.raises(CheckpointLostError):
        states.load_with_metadata("s")
    raw.delete(keys.hash)
    for verb in (
        lambda: states.load_with_metadata("s"),
        lambda: states.list_versions("s"),
        lambda: states.exists("s"),
        lambda: states.save_with_metadata({}, "s"),
    ):
        with pytest.raises(CheckpointLostError):
            verb()
    states.delete_state("s")
    assert states.save_with_metadata({"n": 1}, "s").version == 1


def test_what_is_no_state_is_said_to_be_none(url: str, states: RedisStatePersistence) -> None:
    with RedisSaver(url, prefix=states._engine.settings.prefix) as saver:
        made: Any = {"v": 4, "id": "1", "ts": "", "channel_values": {}, "channel_versions": {}, "versions_seen": {}}
        for metadata in ({}, {"checksum": b"", "compression": "lz4"}):
            saver.put({"configurable": {"thread_id": "s", "checkpoint_ns": ""}}, made, metadata, {})  # type: ignore[arg-type]
            with pytest.raises(SerializationError, match="no saved state"):
                states.load_with_metadata("s")


def test_a_server_that_is_down_is_unavailable_and_works_when_it_is_back(tmp_path: Path) -> None:
    server = EmbeddedServer.start(tmp_path / "own")
    with RedisStatePersistence(server.url, redis_options={"retry": None}) as states:
        states.save_with_metadata({"n": 1}, "s", tags=["t"])
        server.close()
        for verb in (*state_calls(states), lambda: asyncio.run(states.aload_with_metadata("s"))):
            with pytest.raises(ServerUnavailableError):
                verb()
        with EmbeddedServer.start(tmp_path / "own") as back:
            assert back.url == server.url
            assert loaded(states, "s") == {"n": 1}
            assert states.save_with_metadata({"n": 2}, "s").version == 2
            assert states.get_stats()["misses"] == 0


def test_a_closed_store_says_so(make: Make) -> None:
    states = make()
    states.close()
    with pytest.raises(SaverClosedError):
        states.load_with_metadata("s")


def test_signed_states(make: Make) -> None:
    make(integrity_key="the right key of tests").save_with_metadata({"n": 1}, "s")
    assert loaded(make(integrity_key=["the new key of tests", "the right key of tests"]), "s") == {"n": 1}
    for wrong in (make(), make(integrity_key="the wrong key of tests")):
        with pytest.raises(CheckpointCorruptError):
            wrong.load_with_metadata("s")


# --- what it costs ----------------------------------------------------------------------------------------------------


ROOT = Path(__file__).parents[2]
ROWS = re.findall(r"^\| ([\d,]+) \|((?: [\d.]+ % \|){6})$", (ROOT / "docs" / "state.md").read_text("utf-8"), re.MULTILINE)


def test_the_guide_has_a_row_for_each_size() -> None:
    assert [int(size.replace(",", "")) for size, _ in ROWS] == [*SIZES]


@pytest.mark.parametrize("kind", ["words", rare("random")])
@pytest.mark.parametrize(("size", "row"), every(2, ROWS), ids=[size for size, _ in ROWS])
def test_100_versions_of_50_keys_cost_what_the_guide_says(make: Make, namespace: str, kind: str, size: str, row: str) -> None:
    told = [float(share) for share in re.findall(r"[\d.]+", row)]
    bytes_each = int(size.replace(",", ""))
    measured = shares(make(max_versions=100), make(namespace=f"{namespace}-copies"), kind, bytes_each)
    assert [100 * share for share in measured] == pytest.approx(told[:3] if kind == "words" else told[3:], abs=0.3)
    if bytes_each >= 300:  # a tenth of 100 copies
        assert measured[0] <= 0.1
        assert measured[1] <= 0.1
