"""After removals nothing is left that nobody refers to, and the counts are true."""

from __future__ import annotations

import contextlib
import random
import time
from typing import Any

import pytest
from audit import audit, grow, keys_of, put
from langgraph.checkpoint.serde.types import INTERRUPT, RESUME
from langgraph.types import Interrupt
from shapes import at, checkpoint, id_of, metadata, new_id, words
from soak import rare

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.storage.keys import ThreadKeys
from langgraph_redis_state.storage.records import STAMP

# --- garbage and counts -----------------------------------------------------------------------------------------------


def test_nothing_is_left_unreferenced_after_prune_and_deleting_runs(saver: RedisSaver, raw: Any, prefix: str) -> None:
    made = grow(saver, "t", 32, 1)
    told = audit(raw, prefix, "t", clean=True)
    assert told["checkpoints"] == 32 + 11
    saver.delete_for_runs(["run 0", "run 3"])
    told = audit(raw, prefix, "t", clean=True)
    assert {id_of(found.config) for found in saver.list(at("t"))} == {
        id_of(config) for n, config in enumerate(made) if n // 4 not in (0, 3)
    }
    saver.prune(["t"])
    audit(raw, prefix, "t", clean=True)
    assert saver.get_tuple(at("t")).checkpoint["channel_values"]["n"] == 31
    saver.delete_for_runs([f"run {n}" for n in range(8)])
    assert keys_of(raw, prefix) == {f"{prefix}:layout"}


def test_max_versions_keeps_so_many_roots_and_no_garbage(url: str, raw: Any, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix, max_versions=3) as saver:
        made = grow(saver, "t", 20, 2)
        put(saver, made[-1], {"n": 20})
        audit(raw, prefix, "t", clean=True)
        listed = [found.config["configurable"] for found in saver.list(at("t", None))]
        roots = [each["checkpoint_id"] for each in listed if not each["checkpoint_ns"]]
        assert len(roots) == 3
        assert roots[1:] == [id_of(config) for config in made[:-3:-1]]
        assert {each["checkpoint_ns"] for each in listed} <= {"", "sub:18"}
        assert saver.get_tuple(made[-1]).checkpoint["channel_values"]["messages"][-1] == words((2, 19), 200)


def test_max_versions_keeps_an_interrupt_that_waits_and_namespaces_that_stay(url: str, raw: Any, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix, max_versions=3) as saver:
        waiting = put(saver, at("t"), {"n": "waits"})
        saver.put_writes(waiting, [(INTERRUPT, [Interrupt("why?", id="i")])], "task")
        inner = put(saver, at("t", "sub:1"), {"n": "inner"}, parents={"": id_of(waiting)})
        kept = put(saver, at("t", "kept"), {"n": "stays"}, parents={"": id_of(waiting)})
        config = at("t")
        for n in range(10):
            config = put(saver, config, {"n": n})
        roots = [id_of(found.config) for found in saver.list(at("t"))]
        assert len(roots) == 4
        assert roots[-1] == id_of(waiting)
        assert saver.get_tuple(waiting).pending_writes[0][1] == INTERRUPT
        assert saver.get_tuple(inner) is not None
        assert saver.get_tuple(kept) is not None
        put(saver, waiting, {"n": "answered"})  # now it has a child
        for n in range(3):
            config = put(saver, config, {"n": n})
        assert saver.get_tuple(waiting) is None
        assert saver.get_tuple(inner) is None
        assert saver.get_tuple(kept) is not None
        audit(raw, prefix, "t", clean=True)


@pytest.mark.parametrize("seed", [0, rare(1), rare(2), rare(3)])
def test_the_counts_are_true_after_any_sequence_of_verbs(url: str, raw: Any, prefix: str, seed: int) -> None:
    chosen = random.Random(seed)
    with RedisSaver(url, prefix=prefix) as one, RedisSaver(url, prefix=prefix, compression="zlib") as two:
        known: list[Any] = []
        puts: list[tuple[Any, ...]] = []
        for step in range(120):
            saver = chosen.choice((one, two))
            what = chosen.choices(
                ("put", "again", "replace", "writes", "big writes", "prune", "runs", "copy", "delete", "index", "orphan"),
                (30, 6, 6, 16, 8, 3, 4, 3, 1, 3, 3),
            )[0]
            if what == "put":
                ns = chosen.choice(("", "", "sub:1", "beside"))
                parent = chosen.choice(known)["configurable"] if known and chosen.random() < 0.8 else None
                if parent is not None and parent["checkpoint_ns"] != ns:
                    parent = None
                base = at("t", ns, parent["checkpoint_id"] if parent else None)
                messages = [words((seed, n), 150) for n in range(chosen.randrange(45))]
                made = checkpoint({"messages": messages, "n": step, "bytes": words(step, chosen.randrange(200))})
                told = metadata(run_id=f"run {chosen.randrange(5)}")
                puts.append((base, made, told, made["channel_versions"]))
                known.append(saver.put(*puts[-1]))
            elif what == "again" and puts:
                saver.put(*puts[-1])  # a retry
            elif what == "replace" and puts:
                base, made, told, versions = chosen.choice(puts)
                other = {**made, "channel_values": {"n": step, "bytes": words(("r", step), 200)}}
                known.append(saver.put(base, other, told, versions))
            elif what in ("writes", "big writes", "orphan"):
                ns = chosen.choice(("", "sub:1"))
                config = at("t", ns, new_id()) if what == "orphan" or not known else chosen.choice(known)
                value = words((seed, step), 400 if what == "big writes" else 3)
                writes = [("a", value), ("b", step), (chosen.choice((RESUME, INTERRUPT)), [value]), ("c", None)]
                task = f"task {chosen.randrange(4)}"
                for _ in range(chosen.choice((1, 1, 2))):
                    saver.put_writes(config, writes[: chosen.randrange(1, 5)], task)
            elif what == "prune":
                saver.prune(["t"])
                audit(raw, prefix, "t")
            elif what == "runs":
                saver.delete_for_runs([f"run {chosen.randrange(5)}"])
            elif what == "copy" and known:
                with contextlib.suppress(LookupError):
                    saver.copy_thread("t", f"copy {step}")
                    copied = audit(raw, prefix, f"copy {step}")
                    assert copied == audit(raw, prefix, "t") | {name: copied[name] for name in ("born", "revision")}
            elif what == "delete" and step > 60:
                saver.delete_thread("t")
                raw.delete(ThreadKeys(prefix, b"t").all[6])
                known.clear()
            elif what == "index":
                raw.delete(ThreadKeys(prefix, b"t").all[1])
                saver.get_tuple(at("t"))
            if known and what not in ("index",):
                audit(raw, prefix, "t")
        put(one, at("t"), {"n": "last"}, run_id="never deleted")
        one.delete_for_runs([f"run {n}" for n in range(5)])
        audit(raw, prefix, "t", clean=True)


def test_a_write_that_is_sent_again_changes_no_count(saver: RedisSaver, raw: Any, prefix: str) -> None:
    made = checkpoint({"messages": [words(n, 300) for n in range(30)]})
    config = saver.put(at("t"), made, metadata(), made["channel_versions"])
    saver.put_writes(config, [("a", words("a", 400)), (RESUME, [1])], "task")
    before = audit(raw, prefix, "t", clean=True)
    assert saver.put(at("t"), made, metadata(), made["channel_versions"]) == config
    assert audit(raw, prefix, "t", clean=True) == before
    saver.put_writes(config, [("a", words("other", 400))], "task")  # the first stays
    assert audit(raw, prefix, "t", clean=True) == before
    saver.put_writes(config, [(RESUME, [1])], "task")
    assert audit(raw, prefix, "t", clean=True) == before | {"revision": before["revision"] + 1}


# --- what was lost ----------------------------------------------------------------------------------------------------


def test_a_record_starts_with_its_stamp(saver: RedisSaver, raw: Any, prefix: str) -> None:
    """The fields that scripts write by themselves: clock, version, bytes."""
    for n in range(3):
        put(saver, at("t"), {"n": n}, id=f"{n}")
        content = raw.hget(ThreadKeys(prefix, b"t").hash, f"C\0{n}")
        assert int.from_bytes(content[6:11], "big") == n + 1
        assert abs(int.from_bytes(content[:6], "big") - time.time() * 1000) < 60_000
        assert int.from_bytes(content[11:16], "big") == len(content) + 3
    assert STAMP == 20
