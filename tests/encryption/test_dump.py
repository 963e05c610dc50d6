"""What somebody reads who has a dump of the server and no key."""

from __future__ import annotations

from typing import Any

import pytest
from shapes import at, checkpoint, metadata

from langgraph_redis_state import AgentCheckpointer, RedisSaver, RedisStatePersistence

KEYS = {"encryption_key": bytes(range(32)), "name_key": bytes(range(32, 64))}


def dump(raw: Any, prefix: str) -> bytes:
    """Every name, field, member and value under a prefix."""
    found: list[bytes] = []
    for key in raw.scan_iter(match=f"{prefix}:*", count=10_000):
        kind = raw.type(key)
        found.append(key)
        if kind == b"hash":
            found += [part for pair in raw.hgetall(key).items() for part in pair]
        elif kind == b"zset":
            found += raw.zrange(key, 0, -1)
        else:
            found.append(raw.get(key))
    return b"\n".join(found)


@pytest.mark.parametrize(
    ("options", "shows"),
    [
        ({**KEYS, "freshness": True}, set()),
        (
            {"encryption_key": KEYS["encryption_key"]},
            {b"secretthread", b"secretnode", b"secrettag", b"secretrun", b"secretuser", b"secretkey"},
        ),
    ],
)
def test_a_dump_shows_no_value_and_without_a_name_key_these_names(
    url: str, prefix: str, raw: Any, options: Any, shows: set[bytes]
) -> None:
    with RedisSaver(url, prefix=prefix, index_metadata=["secretkey"], **options) as saver:
        values = {"secretchannel": "secretsmall", "long": "secretlarge " * 500, "blob": b"secretbytes", "n": {"secretfield": 1}}
        made = checkpoint(values)
        more = {"run_id": "secretrun", "secretkey": "secretuser", "other": "secretother"}
        config = saver.put(at("secretthread"), made, metadata(**more), made["channel_versions"])
        saver.put_writes(config, [("secretchannel", "secretwrite")], "task", "~secretpath")
        inner = checkpoint({"n": 1})
        saver.put(at("secretthread", "secretnode:1"), inner, metadata(run_id="secretrun"), inner["channel_versions"])
        saver.tag("secretthread", "secrettag")
        assert [found.thread_id for found in saver.find_threads(secretkey="secretuser")] == ["secretthread"]
        assert saver.get_tuple(at("secretthread"))
    hidden = {"channel", "small", "large", "bytes", "field", "other", "write", "path"}
    secrets = {f"secret{name}".encode() for name in hidden | {"thread", "node", "tag", "run", "user", "key"}}
    text = dump(raw, prefix)
    assert {secret for secret in secrets if secret in text} == shows


def test_neither_does_a_dump_of_states(url: str, prefix: str, raw: Any) -> None:
    with RedisStatePersistence(url, prefix=prefix, **KEYS) as states:
        states.save_with_metadata({"secretname": "secretvalue " * 300}, "secretid", version="secretversion", tags=["secrettag"])
        assert states.load_with_metadata("secretid")
        assert [found.state_id for found in states.search_by_tags(["secrettag"])] == ["secretid"]
    with AgentCheckpointer(url, prefix=prefix + "-agents", **KEYS) as agents:
        agents.save_state("secretid", {"files": {"secretname": "secretvalue"}})
        assert agents.load_state("secretid")
    assert b"secret" not in dump(raw, prefix) + dump(raw, prefix + "-agents")
