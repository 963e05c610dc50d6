"""The arithmetic that scripts share, against Python's."""

from __future__ import annotations

import random
from importlib import resources
from typing import Any

import pytest
from shapes import at, checkpoint, metadata

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.effects import Script, libraries, linked, packable
from langgraph_redis_state.scripts import commands
from langgraph_redis_state.storage.codec import place_check
from langgraph_redis_state.storage.keys import ThreadKeys
from langgraph_redis_state.storage.records import STAMP
from langgraph_redis_state.storage.thread_fields import Counts, opened_counts

KEYS = [b"{t}%d" % n for n in range(7)]
PLACE = resources.files("langgraph_redis_state") / "scripts"
INCLUDED = "".join((PLACE / f"{name}.lua").read_text() for name in libraries("-- include: record counts"))


def evaluated(saver: RedisSaver, code: str, *arguments: Any) -> Any:
    return saver.client.eval(linked(INCLUDED, f"local _ = token\n{code}"), len(KEYS), *KEYS, b"thread", *arguments, b"77")


@pytest.mark.parametrize("width", [3, 4, 5, 6])
def test_numbers_are_written_and_read_big_endian(saver: RedisSaver, width: int) -> None:
    most = min(1 << 8 * width, 1 << 50)
    numbers = [0, 1, 255, 256, 65_535, 65_536, most - 1, *(random.Random(n).randrange(most) for n in range(200))]
    code = f"local o = {{}} for k = 2, #ARGV do o[#o+1] = write_uint(tonumber(ARGV[k]), {width}) end return o"
    written = evaluated(saver, code, *numbers)
    assert written == [number.to_bytes(width, "big") for number in numbers]
    code = f"local o = {{}} for k = 2, #ARGV do o[#o+1] = number(read_uint('x' .. ARGV[k] .. 'x', 2, {width})) end return o"
    assert evaluated(saver, code, *written) == [b"%d" % number for number in numbers]


def test_two_bytes_are_read_big_endian(saver: RedisSaver) -> None:
    code = "local o = {} for k = 2, #ARGV do o[#o+1] = read_uint(ARGV[k], 1, 2) end return o"
    numbers = [0, 1, 255, 256, 65_535]
    assert evaluated(saver, code, *(number.to_bytes(2, "big") for number in numbers)) == numbers


def test_a_negative_size_does_not_stop_a_script(saver: RedisSaver) -> None:
    """A part that is sent again may be smaller than the damaged one it replaces."""
    for width in (3, 4, 5, 6):
        written = evaluated(saver, f"return write_uint(tonumber(ARGV[2]), {width})", -300)
        assert written == (-300 % (1 << 8 * width)).to_bytes(width, "big")


def test_checks_are_those_of_the_codec(saver: RedisSaver) -> None:
    contents = [random.Random(n).randbytes(n % 70) for n in range(300)]
    code = "local o = {} for k = 2, #ARGV do o[#o+1] = short_check(ARGV[k]) end return o"
    assert evaluated(saver, code, *contents) == [place_check(content) for content in contents]


def test_counts_have_the_names_and_the_order_of_python(saver: RedisSaver) -> None:
    assert evaluated(saver, "return COUNTS") == [name.encode() for name in Counts._fields[:-1]]
    assert evaluated(saver, "return { unpack(COUNTS, TOTALS) }") == [name.encode() for name in Counts._fields[3:-1]]
    assert Counts.difference(referred=7).totals == (0, 0, 0, 0, 0, 0, 7)


def test_counts_come_back(saver: RedisSaver) -> None:
    names = Counts._fields[:-1]
    numbers = [1_700_000_000_000_000, *range(1, 9), 2**49]
    fields = (
        ", ".join(f"{name} = {number}" for name, number in zip(names, numbers, strict=True))
        .replace("born = ", "born = '")
        .replace(", changes", "', changes")
    )
    text = evaluated(saver, f"return format_counts({{ {fields} }})")
    assert opened_counts(text, b"thread", "").split() == [b"%d" % number for number in numbers] + [b"77"]
    assert Counts(*numbers, 77).line(b"thread") == text
    read = "local s = parse_counts(ARGV[2]) return { " + ", ".join(f"number(s.{name})" for name in names) + " }"
    assert evaluated(saver, read, text) == [b"%d" % number for number in numbers]
    assert evaluated(saver, "return parse_counts(ARGV[2]) == nil and 1 or 0", text.replace(b" 4 ", b" 5 ")) == 1


def test_the_stamp_is_as_long_as_the_scripts_think(saver: RedisSaver) -> None:
    assert evaluated(saver, "return STAMP") == STAMP
    assert len(ThreadKeys("p", b"t").all) == len(KEYS)


def test_a_script_holds_what_it_uses_and_makes_what_is_rare_when_it_is_called(saver: RedisSaver) -> None:
    library = """
local unused = 1
local BASE = 5
local function often(n) return n + BASE end
local function seldom(n) -- rare: calls another
  return often(n) * 10
end
local function never() -- rare
  return unused
end
local function twice(n) return seldom(n), seldom(n + 1) end
"""
    text = linked(library, "-- never and unused are named in a comment only\nreturn { twice(1) }\n")
    assert saver.client.eval(text, 0) == [60, 70]
    assert text.count("unused") == 1
    assert (
        text.index("rarely = function") < text.index("BASE = 5") < text.index("local function often") < text.index("seldom(n)")
    )
    text = linked(library, "return { often(1), twice(1) }\n")
    assert saver.client.eval(text, 0) == [6, 60, 70]
    assert text.index("local function often") < text.index("rarely = function") < text.index("local function seldom")
    assert text.count("BASE = 5") == 1


def test_a_step_of_a_run_calls_nothing_that_is_rare(saver: RedisSaver, raw: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sent, make = dict[str, Any](), commands._call

    def noted(script: Script, *arguments: Any, **more: Any) -> Any:
        sent[script.name] = make(script, *arguments, **more)
        return sent[script.name]

    monkeypatch.setattr(commands, "_call", noted)
    config = at("t")
    for n in range(3):
        step = checkpoint({"n": [f"{m} {'word ' * 50}" for m in range(10 + n)]})
        config = saver.put(config, step, metadata(), step["channel_versions"])
        saver.put_writes(config, [("n", "small")], "task")
        saver.get_tuple(config)
    for name in ("put", "put_writes", "get"):
        call = sent[name]
        arguments = packable(call.args)
        if name != "get":
            arguments[2] = b"ffffffff" + arguments[2][8:]  # the next one
        text = call.script.source.replace("rarely = function(name, ...)\n", "rarely = function(name, ...)\nerror(name)\n")
        assert "error(name)" in text
        assert raw.eval(text, len(call.keys), *call.keys, *arguments, call.token)[0] == b"ok"
