"""What commands that look print, for people and as JSON, on threads in every state; and that nothing of a value is run."""

from __future__ import annotations

import json
import os
import re
from typing import Annotated, Any, TypedDict

import pytest
import redis
from commandline import Lgrs
from langgraph.channels.delta import DeltaChannel
from langgraph.graph import START, StateGraph
from shapes import SyncSurface, at, put
from storehouse import MARK, NASTY, THREADS, State, says

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.cli.command import FIELDS

EXAMPLES: dict[str, tuple[str, ...]] = {
    "threads": (),
    "why": ("asked",),
    "history": ("forked",),
    "show": ("chat",),
    "messages": ("chat",),
    "writes": ("asked",),
    "diff": ("forked",),
    "tags": ("forked",),
    "stats": ("forked",),
    "verify": ("damaged",),
    "doctor": (),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_json_is_one_object_a_line_with_the_documented_fields(lgrs: Lgrs, name: str) -> None:
    told = lgrs(name, *EXAMPLES[name], "--json")
    assert told.out.isascii()
    assert told.records
    for record in told.records:
        assert list(record) == list(FIELDS[name])
    assert all(meaning for meaning in FIELDS[name].values())


@pytest.mark.parametrize("name", EXAMPLES)
@pytest.mark.parametrize("columns", ["60", "200"])
def test_text_fits_the_terminal_and_holds_no_control_character(
    lgrs: Lgrs, monkeypatch: pytest.MonkeyPatch, name: str, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    told = lgrs(name, *EXAMPLES[name])
    assert told.out
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", told.out + told.err)
    assert max(map(len, told.out.splitlines())) <= int(columns)


def test_threads_says_what_each_waits_for(lgrs: Lgrs) -> None:
    found = {record["thread_id"]: record for record in lgrs("threads", "--json", "--alive", "0s").records}
    assert found.keys() == set(THREADS), "a deleted thread is not there"
    statuses = {thread: record["status"] for thread, record in found.items()}
    assert {thread for thread, status in statuses.items() if status == "died"} == {
        each for each in THREADS if each.startswith("killed")
    }
    assert (statuses["asked"], statuses["failed"], statuses["forked"]) == ("asks", "failed", "done")
    assert found["failed"]["nodes"] == ["work"]
    told = lgrs("threads", "--alive", "0s")
    assert re.search(r"^failed +failed ", told.out, re.MULTILINE)
    assert "next: lgrs why " in told.err


def test_threads_are_chosen_by_status_beginning_idleness_metadata_and_number(lgrs: Lgrs) -> None:
    def threads(*options: str) -> set[str]:
        return {record["thread_id"] for record in lgrs("threads", "--json", *options).records}

    assert threads("--status", "failed") == {"failed"}
    assert threads("--status", "asks", "--status", "failed") == {"asked", "sends", "failed"}
    assert threads("--status", "died", "--alive", "0s") == {each for each in THREADS if each.startswith("killed")}
    assert threads("--begins", "for") == {"forked"}
    assert threads("--idle", "1d") == set()
    assert threads("--where", "user=ada") == {"chat"}
    assert threads("--where", "user=eve") == set()
    assert len(threads("-n", "3")) == 3
    assert "only the first 3 are shown" in lgrs("threads", "-n", "3").err
    assert "no such threads" in lgrs("threads", "--status", "unreadable").err


def test_history_shows_branches_subgraphs_and_tags(lgrs: Lgrs) -> None:
    lines = lgrs("history", "forked").out.splitlines()
    branch = [line for line in lines if line.startswith("│ ●")]
    assert len(branch) == 2, "the branch that was left"
    assert any("update" in line and line.startswith("●") for line in lines)
    assert any("planned" in line for line in lines)
    records = lgrs("history", "forked", "--json").records
    assert [record["tags"] for record in records if record["tags"]] == [["planned"]]
    told = lgrs("history", "called").out
    assert "call: 4 steps" in told
    assert lgrs("history", "called", "--subgraphs").out.count("call:") == 4
    inner = [record for record in lgrs("history", "called", "--json").records if record["checkpoint_ns"]]
    assert len(inner) == 4
    roots = {record["checkpoint_id"] for record in lgrs("history", "called", "--json").records if not record["checkpoint_ns"]}
    assert {record["root_id"] for record in inner} <= roots


def test_a_checkpoint_is_named_by_steps_number_tag_and_the_beginning_of_its_id(lgrs: Lgrs) -> None:
    records = lgrs("history", "forked", "--json").records
    by_id = {record["checkpoint_id"]: record for record in records}
    newest = records[0]
    up = by_id[by_id[newest["parent_id"]]["parent_id"]]
    tagged = next(record for record in records if record["tags"])

    def log(selected: str) -> Any:
        return lgrs("show", selected, "log", "--json").record["value"]

    assert (
        log("forked") == log("forked@latest") == log(f"forked@v{newest['number']}") == log(f"forked@{newest['checkpoint_id']}")
    )
    assert log("forked@-2") == log(f"forked@{up['checkpoint_id']}") != log("forked")
    assert log("forked@planned") == log(f"forked@{tagged['checkpoint_id']}")
    assert log("fork") == log("forked"), "the beginning of a thread's id, if only one begins so"


def test_a_thread_id_with_an_at_takes_precedence(lgrs: Lgrs, saver: RedisSaver, prefix: str) -> None:
    StateGraph(State).add_node("a", says("a")).add_edge(START, "a").compile(checkpointer=saver).invoke(
        {"log": []}, at("ada@example.org")
    )
    assert lgrs("--prefix", prefix, "stats", "ada@example.org", "--json").record["thread_id"] == "ada@example.org"
    assert lgrs("--prefix", prefix, "show", "ada@example.org@-1", "--json").code == 0


def test_messages_are_a_conversation_with_calls_beside_their_results(lgrs: Lgrs) -> None:
    first, second, last = lgrs("messages", "chat", "--json").records
    assert (first["role"], second["role"], last["role"]) == ("user", "assistant", "assistant")
    assert [(call["name"], call["result"], call["status"]) for call in second["calls"]] == [
        ("weather", "21 degrees", "success"),
        ("stocks", "no such share", "error"),
        ("never", None, ""),
    ]
    assert last["text"] == "It is warm.\n[image_url]"
    told = lgrs("messages", "chat").out
    assert '→ weather({"city": "Rome"})\n    ← 21 degrees' in re.sub(" +\n", "\n", told)
    assert "← failed: no such share" in told
    assert "← no answer" in told
    assert "\\x1b]0;owned\\x07" in told
    assert "[bold]<script>" in told, "markup stays text"
    assert len(lgrs("messages", "chat", "--json", "-n", "1").records) == 1
    assert "no channel of it holds messages" in lgrs("messages", "asked").err


def test_show_gives_one_value_whole_and_names_what_there_is_when_there_is_no_such_channel(lgrs: Lgrs) -> None:
    value = json.loads(lgrs("show", "chat", "messages").out)
    assert value[0]["$class"] == "langchain_core.messages.human.HumanMessage"
    assert value[0]["fields"]["name"] == NASTY
    told = lgrs("show", "chat", "nothing")
    assert told.code == 4
    assert "'messages'" in told.err


def test_a_planted_record_is_shown_and_runs_nothing(lgrs: Lgrs) -> None:
    for arguments in (("show", "planted"), ("show", "planted", "--json"), ("show", "planted", "evil"), ("messages", "planted")):
        assert lgrs(*arguments).code == 0
    record = next(each for each in lgrs("show", "planted", "--json").records if each["channel"] == "evil")
    assert record["value"] == [{"$class": "os.system", "fields": f"touch {MARK}"}]
    pickled = next(each for each in lgrs("show", "planted", "--json").records if each["channel"] == "pickled")
    assert list(pickled["value"]) == ["$pickle"]
    assert not os.path.exists(MARK)


def test_mask_shows_kinds_and_sizes_only(lgrs: Lgrs) -> None:
    for arguments in (
        ("show", "chat"),
        ("messages", "chat"),
        ("writes", "asked"),
        ("diff", "chat"),
        ("why", "asked"),
        ("why", "failed"),
    ):
        for way in ((), ("--json",)):
            told = lgrs(*arguments, "--mask", *way).out
            assert not re.search(r"warm|Rome|degrees|653\.70|drafted|printer|script", told), (arguments, way)
            assert "•str" in told or "\\u2022str" in told or arguments[0] == "diff"


def test_writes_names_task_channel_and_value(lgrs: Lgrs) -> None:
    found = {(record["task_path"], record["channel"]): record["value"] for record in lgrs("writes", "asked", "--json").records}
    assert found["~__pregel_pull, draft", "log"] == ["drafted"]
    (asked,) = found["~__pregel_pull, work", "__interrupt__"]
    assert (asked["$class"], asked["fields"]["value"]) == ("langgraph.types.Interrupt", "Shall I pay 653.70 EUR?")
    assert "pull draft" in lgrs("writes", "asked").out
    assert "no pending writes" in lgrs("writes", "forked").err


def test_diff_compares_with_the_parent_or_with_another_checkpoint(lgrs: Lgrs) -> None:
    log = next(record for record in lgrs("diff", "forked", "--json").records if record["channel"] == "log")
    assert log == {"channel": "log", "kind": "changed", "before": [], "after": ["settled"], "list": True}
    log = next(record for record in lgrs("diff", "forked@planned", "latest", "--json").records if record["channel"] == "log")
    assert log["after"] == ["changed", "drafted", "worked", "settled"]
    assert "  + settled" in lgrs("diff", "forked").out
    first = lgrs("history", "forked", "--json").records[-1]["checkpoint_id"]
    assert lgrs("diff", f"forked@{first}").code == 4


def test_stats_of_a_thread_and_of_all(lgrs: Lgrs) -> None:
    assert lgrs("stats", "forked", "--json").record["threads"] == 1
    everything = lgrs("stats", "--json").record
    assert (everything["threads"], everything["thread_id"]) == (len(THREADS), None)
    assert "times as much" in lgrs("stats").out


def test_verify_finds_the_damaged_chunk_and_names_the_next_command(lgrs: Lgrs) -> None:
    told = lgrs("verify", "damaged")
    assert told.code == 3
    assert "damaged" in told.out
    assert "next: lgrs repair damaged --drop-unreadable" in told.err
    assert lgrs("verify", "forked").code == 0
    assert {record["thread_id"] for record in lgrs("verify", "--json").records} == {"damaged"}
    shown = lgrs("show", "damaged")
    assert shown.code == 1
    assert "damaged" in shown.err


def test_doctor_names_what_endangers_threads_and_what_to_do(lgrs: Lgrs) -> None:
    told = lgrs("doctor", "--json")
    checks = {record["check"]: record for record in told.records}
    assert checks["server"]["level"] == checks["layout"]["level"] == checks["rights to look"]["level"] == "fine"
    assert checks["persistence"]["level"] == "problem", "the server of the tests keeps nothing"
    assert told.code == 3
    assert all(check["advice"] for check in checks.values() if check["level"] == "problem")


def joined(values: list[str], writes: list[list[str]]) -> list[str]:
    return [*values, *(each for write in writes for each in write)]


def test_doctor_tells_a_user_who_may_only_look_from_one_who_may_nothing(
    lgrs: Lgrs, raw: redis.Redis, prefix: str, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = raw.connection_pool.connection_kwargs["path"]
    looking = "+evalsha +eval +ping +get +exists +time +pttl +hget +hmget +zcard +zrange +zrangebylex +zrevrangebylex +zscore"
    levels = {}
    for rules in (looking, "+ping"):
        raw.execute_command("ACL", "SETUSER", prefix, "reset", "on", ">pw", f"~{store}:*", *rules.split())
        monkeypatch.setenv("LGRS_URL", f"unix://{prefix}:pw@{path}")
        levels[rules] = {record["check"]: record["level"] for record in lgrs("doctor", "--json").records}
    raw.execute_command("ACL", "DELUSER", prefix)
    assert levels[looking]["rights to look"] == "fine"
    assert levels[looking]["rights to run graphs"] == "notice"
    assert levels[looking]["server"] == "unknown", "INFO was not granted"
    assert levels["+ping"]["rights"] == "problem"


def test_delta_channels_are_shown_by_what_they_are_rebuilt_from(lgrs: Lgrs, saver: RedisSaver, prefix: str) -> None:
    class Deltas(TypedDict):
        log: Annotated[list[str], DeltaChannel(joined, list)]

    graph = StateGraph(Deltas).add_node("a", lambda state: {"log": ["a"]}).add_node("b", lambda state: {"log": ["b"]})
    graph.add_edge(START, "a").add_edge("a", "b").compile(checkpointer=saver).invoke({"log": ["begin"]}, at("t"))
    record = next(each for each in lgrs("--prefix", prefix, "show", "t", "--json").records if each["channel"] == "log")
    assert record["rebuilt"]
    assert record["value"][-2:] == ["a", "b"]


def test_watch_tells_what_is_new_and_ends_when_the_thread_is_so_far(lgrs: Lgrs) -> None:
    records = lgrs("watch", "asked", "--until", "asks", "--json").records
    assert [record["event"] for record in records][-1] == "status"
    assert {"__interrupt__", "log"} <= {record["write"]["channel"] for record in records if record["event"] == "write"}
    told = lgrs("watch", "asked", "--until", "done", "--timeout", "0s", "--every", "0.01s")
    assert told.code == 3


def test_watch_follows_a_run(lgrs: Lgrs, saver: RedisSaver, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from langgraph_redis_state.cli import state

    builder = StateGraph(State).add_node("a", says("a")).add_edge(START, "a").compile(checkpointer=saver)
    builder.invoke({"log": []}, at("t"))
    ticks = iter([lambda: builder.invoke({"log": []}, at("t")), lambda: builder.update_state(at("t"), {"log": ["x"]})])

    class Interrupted(Exception):
        pass

    def sleep(seconds: float) -> None:
        tick = next(ticks, None)
        if tick is None:
            raise KeyboardInterrupt
        tick()

    monkeypatch.setattr(state.time, "sleep", sleep)
    told = lgrs("--prefix", prefix, "watch", "t", "--json")
    assert told.code == 130
    sources = [record["checkpoint"]["source"] for record in told.records if record["event"] == "checkpoint"]
    assert sources == ["input", "loop", "loop", "update"]


def test_completion_knows_threads_and_tags(lgrs: Lgrs, monkeypatch: pytest.MonkeyPatch) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "_LGRS_COMPLETE" in lgrs("completion", shell).out
    from langgraph_redis_state.cli.app import lgrs as group
    from langgraph_redis_state.cli.command import complete_thread

    context = group.make_context("lgrs", ["threads"])
    parameter: Any = None
    assert complete_thread(context, parameter, "fo") == ["forked"]
    assert complete_thread(context, parameter, "forked@p") == ["forked@planned"]
    monkeypatch.setenv("LGRS_URL", "redis://127.0.0.1:1")
    assert complete_thread(group.make_context("lgrs", ["threads"]), parameter, "fo") == []


async def test_looking_changes_nothing(lgrs: Lgrs, url: str, prefix: str, raw: redis.Redis) -> None:
    with RedisSaver(url, prefix=prefix, ttl=86_400) as whole:
        await put(SyncSurface(whole), at("t"), {"x": 1, "big": "y" * 3000})
        whole.tag("t", "there")
    keys = sorted(raw.scan_iter(f"{prefix}:*", count=1000))
    for key in keys:
        raw.pexpire(key, 3_600_000)

    def seen() -> list[Any]:
        read = {b"hash": raw.hgetall, b"zset": lambda key: raw.zrange(key, 0, -1, withscores=True), b"string": raw.get}
        return [
            (key, read[raw.type(key)](key), raw.pttl(key) <= 3_600_000)
            for key in sorted(raw.scan_iter(f"{prefix}:*", count=1000))
        ]

    before = seen()
    for name in EXAMPLES:
        lgrs("--prefix", prefix, name, *(["t"] if EXAMPLES[name] else []))
    assert seen() == before
