"""Records that somebody without the key wrote are refused before they are deserialized."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from damaging import IDS, Stored
from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer
from shapes import at, checkpoint, metadata, words

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import IntegrityKeyError, SerializationError


@pytest.fixture
def saver(url: str, prefix: str) -> Iterator[RedisSaver]:
    """One that remembers no chunks: all it gives comes from the server."""
    with RedisSaver(url, prefix=prefix, cache_bytes=0) as opened:
        yield opened


class Watching(JsonPlusSerializer):
    """Counts what it is asked to deserialize."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        self.loads.append(data[0])
        return super().loads_typed(data)


def test_with_a_key_a_record_of_somebody_without_it_is_refused_before_it_is_deserialized(
    url: str, raw: Any, prefix: str
) -> None:
    serde = Watching()
    with (
        RedisSaver(url, prefix=prefix) as stranger,
        RedisSaver(url, prefix=prefix, integrity_key="another secret of tests") as other,
        RedisSaver(url, prefix=prefix, integrity_key="the secret of tests", serde=serde) as saver,
    ):
        for thread, writer in (("plain", stranger), ("other", other)):
            made = Stored(writer, raw, prefix, thread)
            config = made.put("", IDS[0], {"n": 1})
            writer.put_writes(config, [("n", 2)], "task")
            with pytest.raises(IntegrityKeyError, match=thread):
                saver.get_tuple(at(thread))
            with pytest.raises(IntegrityKeyError):
                list(saver.list(at(thread)))
            with pytest.raises(IntegrityKeyError):
                saver.copy_thread(thread, f"copy of {thread}")
            with pytest.raises(IntegrityKeyError):
                saver.get_delta_channel_history(config=made.put("", IDS[1], {}, IDS[0]), channels=["n"])
        mine = Stored(saver, raw, prefix, "mine")
        config = mine.put("", IDS[0], {"n": 1})
        stranger.put_writes(config, [("n", "forged")], "task")
        serde.loads.clear()
        with pytest.raises(IntegrityKeyError, match="pending writes"):
            saver.get_tuple(at("mine"))
        assert "forged" not in serde.loads
        serde.loads.clear()
        with pytest.raises(IntegrityKeyError):
            saver.get_tuple(at("plain"))
        assert serde.loads == []


def test_a_key_that_was_rotated_still_verifies_and_chunks_are_shared(url: str, raw: Any, prefix: str) -> None:
    messages = [words(n, 300) for n in range(30)]
    with (
        RedisSaver(url, prefix=prefix, integrity_key=b"the old key of tests") as old,
        RedisSaver(url, prefix=prefix, integrity_key=["the new key of tests", "the old key of tests"]) as both,
        RedisSaver(url, prefix=prefix, integrity_key="the new key of tests") as new,
    ):
        made = Stored(old, raw, prefix, "t")
        made.put("", IDS[0], {"messages": messages})
        chunks = {name for name in raw.hkeys(made.keys.hash) if name[:1] in b"DP"}
        made.saver = both
        assert both.get_tuple(at("t")).checkpoint["channel_values"]["messages"] == messages
        made.put("", IDS[1], {"messages": messages}, IDS[0])
        assert {name for name in raw.hkeys(made.keys.hash) if name[:1] in b"DP"} == chunks
        assert new.get_tuple(at("t", "", IDS[1])).checkpoint["channel_values"]["messages"] == messages
        with pytest.raises(IntegrityKeyError):
            old.get_tuple(at("t", "", IDS[1]))
        with pytest.raises(IntegrityKeyError):
            new.get_tuple(at("t", "", IDS[0]))
        both.copy_thread("t", "copy")  # signed anew, with the first key
        assert len(list(new.list(at("copy")))) == 2


SECRET = "the secret of tests"


@pytest.mark.parametrize(
    ("given", "same"), [(SECRET, SECRET.encode()), ([SECRET], SECRET), ((SECRET.encode(), "another " + SECRET), SECRET)]
)
def test_a_key_may_be_text_or_bytes_or_several(url: str, prefix: str, given: Any, same: Any) -> None:
    with RedisSaver(url, prefix=prefix, integrity_key=given) as one, RedisSaver(url, prefix=prefix, integrity_key=same) as two:
        made = checkpoint({"n": 1})
        one.put(at("t"), made, metadata(), {"n": 1})
        assert two.get_tuple(at("t")).checkpoint["channel_values"] == {"n": 1}


def test_unkeyed_data_is_read_with_a_key_only_where_that_is_allowed(url: str, raw: Any, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix) as before:
        Stored(before, raw, prefix, "t").put("", IDS[0], {"n": 1})
    with RedisSaver(url, prefix=prefix, integrity_key="the key of tests", accept_unkeyed=True) as migrating:
        assert migrating.get_tuple(at("t")).checkpoint["channel_values"] == {"n": 1}
        Stored(migrating, raw, prefix, "t").put("", IDS[1], {"n": 2}, IDS[0])
    with RedisSaver(url, prefix=prefix, integrity_key="the key of tests") as strict:
        assert strict.get_tuple(at("t")).checkpoint["channel_values"] == {"n": 2}
        with pytest.raises(IntegrityKeyError, match="accept_unkeyed"):
            strict.get_tuple(at("t", "", IDS[0]))
    with RedisSaver(url, prefix=prefix) as without, pytest.raises(IntegrityKeyError):
        without.get_tuple(at("t"))


class Tagged(JsonPlusSerializer):
    """Writes values under a type of its own."""

    def __init__(self, tag: str) -> None:
        super().__init__()
        self.tag = tag

    def dumps_typed(self, value: Any) -> tuple[str, bytes]:
        if value == "special":
            return self.tag, b"\x80\x04K\x01."  # the pickle of 1
        return super().dumps_typed(value)


@pytest.mark.parametrize("tag", ["pickle", "unheard of", ""])
def test_a_stored_tag_that_is_unknown_or_pickle_is_refused_and_named(url: str, raw: Any, prefix: str, tag: str) -> None:
    with RedisSaver(url, prefix=prefix, serde=Tagged(tag)) as writer, RedisSaver(url, prefix=prefix) as saver:
        made = Stored(writer, raw, prefix, "t")
        config = made.put("", IDS[0], {"n": 1})
        writer.put_writes(config, [("w", "special")], "task")
        with pytest.raises(SerializationError, match=f"'w'.*{tag!r}"):
            saver.get_tuple(at("t"))
        made.put("", IDS[1], {"channel": "special"})
        with pytest.raises(SerializationError, match=f"'channel'.*{tag!r}"):
            saver.get_tuple(at("t"))
        with pytest.raises(SerializationError, match="'channel'"):
            list(saver.list(at("t")))
