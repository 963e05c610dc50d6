"""Equal content gives equal bytes within a thread, different content never the same synthetic IV."""

from __future__ import annotations

from typing import Any

from audit import grow
from shapes import at, checkpoint, metadata, words

from langgraph_redis_state import RedisSaver

KEY = bytes(range(32))


def test_a_repeated_put_changes_nothing_and_equal_content_is_stored_once_a_thread(url: str, prefix: str, raw: Any) -> None:
    chunks = {}
    for thread in ("t", "u"):
        made = checkpoint({"a": words(1, 100), "b": words(1, 100)})
        for _ in range(2):
            with RedisSaver(url, prefix=prefix, encryption_key=KEY) as saver:
                saver.put(at(thread), made, metadata(), made["channel_versions"])
                key = saver._engine.address(thread).keys.hash
            fields = raw.hgetall(key)
            found = {name: content for name, content in fields.items() if name[:1] in (b"C", b"D")}
            assert chunks.setdefault(thread, found) == found
    assert sum(name[:1] == b"D" for name in chunks["t"]) == sum(name[:1] == b"D" for name in chunks["u"]) > 0
    assert not {name for name in chunks["t"].keys() & chunks["u"].keys() if name[:1] == b"D"}
    assert not {content for name, content in chunks["t"].items() if name[:1] == b"D"} & set(chunks["u"].values())


def test_no_two_chunks_have_the_same_synthetic_iv(url: str, prefix: str, raw: Any) -> None:
    with RedisSaver(url, prefix=prefix, encryption_key=KEY) as saver:
        made = grow(saver, "t", 8, 1)
        for n in range(6):  # forks
            grow(saver, "t", 2, ("fork", n), made[n])
        fields = raw.hgetall(saver._engine.address("t").keys.hash)
    ivs = [content[6:22] for name, content in fields.items() if name[:1] == b"D"]
    assert len(ivs) > 20
    assert len(set(ivs)) == len(ivs)
