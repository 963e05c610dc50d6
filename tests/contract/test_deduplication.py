"""What is stored of a new checkpoint: only what changed."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest
from audit import audit, keys_of, monitored, put
from langgraph.checkpoint.serde.encrypted import EncryptedSerializer
from shapes import at, id_of, new_id, words

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.operations import uploading
from langgraph_redis_state.storage.chunks import RUN_MAX
from langgraph_redis_state.storage.keys import ThreadKeys

# --- what is stored ---------------------------------------------------------------------------------------------------


def parts_of(raw: Any, prefix: str, thread: str) -> dict[bytes, int]:
    fields = raw.hgetall(ThreadKeys(prefix, thread.encode()).hash)
    return {name: len(content) for name, content in fields.items() if name[:1] in b"DP"}


def test_a_channel_that_did_not_change_is_not_stored_again(saver: RedisSaver, raw: Any, prefix: str) -> None:
    big = [words(n, 300) for n in range(50)]
    config = put(saver, at("t"), {"big": big, "n": 0})
    before = parts_of(raw, prefix, "t")
    for n in range(1, 10):
        config = put(saver, config, {"big": big, "n": n}, ["n"])
    assert parts_of(raw, prefix, "t") == before
    assert saver.get_tuple(at("t")).checkpoint["channel_values"] == {"big": big, "n": 9}
    put(saver, at("t", "sub:1"), {"big": big}, id=new_id())  # another namespace shares the chunks too
    assert parts_of(raw, prefix, "t") == before
    audit(raw, prefix, "t", clean=True)


def test_an_encrypted_channel_is_stored_whole_when_it_changes_and_once_when_not(url: str, raw: Any, prefix: str) -> None:
    serde = EncryptedSerializer.from_pycryptodome_aes(key=b"k" * 32)
    big = ["the same words again and again"] * 2_000
    with RedisSaver(url, prefix=prefix, serde=serde) as saver:
        config = put(saver, at("t"), {"big": big, "n": 0})
        before = parts_of(raw, prefix, "t")
        whole = sum(before.values())
        assert whole > len(serde.dumps_typed(big)[1])  # nothing of it is compressed
        config = put(saver, config, {"big": big, "n": 1}, ["n"])
        assert parts_of(raw, prefix, "t") == before
        put(saver, config, {"big": big, "n": 2})
        assert sum(parts_of(raw, prefix, "t").values()) == 2 * whole
        assert saver.get_tuple(at("t")).checkpoint["channel_values"] == {"big": big, "n": 2}


def test_appending_to_a_long_list_stores_a_few_new_chunks(saver: RedisSaver, raw: Any, prefix: str) -> None:
    messages = [{"role": "user", "id": n, "text": words(n, 20)} for n in range(500)]
    config = put(saver, at("t"), {"messages": messages})
    for n in range(500, 520):
        before = parts_of(raw, prefix, "t")
        messages = [*messages, {"role": "user", "id": n, "text": words(n, 20)}]
        config = put(saver, config, {"messages": messages})
        new = {name: size for name, size in parts_of(raw, prefix, "t").items() if name not in before}
        assert len(new) <= 4
        assert sum(new.values()) <= 3 * RUN_MAX
    before = parts_of(raw, prefix, "t")
    put(saver, config, {"messages": messages[10:]})  # and dropping the first
    new = {name: size for name, size in parts_of(raw, prefix, "t").items() if name not in before}
    assert len(new) <= 8
    assert sum(new.values()) <= 3 * RUN_MAX
    audit(raw, prefix, "t", clean=True)


def test_a_history_costs_what_changed_and_not_history_times_state(saver: RedisSaver, raw: Any, prefix: str) -> None:
    messages: list[Any] = []
    config = at("t")
    sizes = []
    for n in range(240):
        messages = [*messages, {"id": n, "text": words(n, 25)}]
        config = put(saver, config, {"messages": messages})
        if n % 60 == 59:
            sizes.append(audit(raw, prefix, "t", clean=True)["stored"])
    growth = [after - before for before, after in pairwise(sizes)]
    assert growth[-1] < 1.5 * growth[0], sizes


def test_a_large_upload_that_is_sent_again_leaves_nothing_in_staging(
    saver: RedisSaver, raw: Any, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploading, "UPLOAD_BYTES", 10_000)
    values = {"kept": words("kept", 200), "big": words("old", 20)}
    config = put(saver, at("t"), values, versions={"kept": 1, "big": 1})
    thread = ThreadKeys(prefix, b"t").hash
    raw.hdel(thread, *(name for name in raw.hkeys(thread) if name[:1] == b"D"))
    values["big"] = words("new", 5000)
    put(saver, config, values, new=["big"], versions={"kept": 1, "big": 2})
    assert saver.get_tuple(at("t")).checkpoint["channel_values"] == values
    assert not [name for name in keys_of(raw, prefix) if name.startswith("u:")]


def test_a_large_upload_goes_through_staging_and_leaves_none_of_it(
    saver: RedisSaver, raw: Any, url: str, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploading, "UPLOAD_BYTES", 500_000)
    big = random.Random(1).randbytes(uploading.UPLOAD_BYTES + 200_000)
    with monitored(url) as sent:
        config = put(saver, at("t"), {"big": big})
    assert sent.count("EVALSHA") + sent.count("EVAL") > 2
    assert not any(name.startswith("u:") for name in keys_of(raw, prefix))
    saver.put_writes(config, [("w", big[::-1])], "task")
    saver.copy_thread("t", "copy")
    assert not any(name.startswith("u:") for name in keys_of(raw, prefix))
    for thread in ("t", "copy"):
        found = saver.get_tuple(at(thread))
        assert found.checkpoint["channel_values"]["big"] == big
        assert found.pending_writes == [("task", "w", big[::-1])]
        audit(raw, prefix, thread, clean=True)


# --- what was lost ----------------------------------------------------------------------------------------------------


def test_parts_that_another_saver_collected_are_sent_again(url: str, raw: Any, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix) as one, RedisSaver(url, prefix=prefix) as two:
        big = [words(n, 300) for n in range(40)]
        first = put(one, at("t"), {"big": big, "n": 1})
        two.get_tuple(first)
        newest = put(one, at("t"), {"n": 2}, id=new_id())
        two.prune(["t"])  # takes the chunks that `one` believes the server has
        assert not parts_of(raw, prefix, "t")
        child = put(one, first, {"big": big, "n": 3}, ["n"])
        assert one.get_tuple(child).checkpoint["channel_values"] == {"big": big, "n": 3}
        put(two, first, {"big": [*big, "more"], "n": 4}, ["n", "big"])
        audit(raw, prefix, "t", clean=True)
        one.delete_thread("t")
        raw.delete(ThreadKeys(prefix, b"t").all[6])
        again = put(two, at("t"), {"big": big})
        assert two.get_tuple(again).checkpoint["channel_values"] == {"big": big}
        assert id_of(newest) < id_of(again)
