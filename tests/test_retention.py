"""Histories that stay bounded: what retention and pruning drop, what they must keep, and that nothing is ever half gone.

A client is killed at a few random moments each of a truncation, two prunes and a copy in every run of these tests; `make soak`
makes that 12 of each, and `make soak-long` 100.
"""

from __future__ import annotations

import operator
import os
import random
import subprocess
import sys
import time
from collections import Counter
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import pytest
import redis
from langchain_core.messages import AIMessage, HumanMessage
from langgraph.channels.delta import DeltaChannel
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import START, MessagesState, StateGraph
from langgraph.types import Command, Send, interrupt
from shapes import at, checkpoint, id_of, metadata, new_id, plain
from soak import times
from typing_extensions import TypedDict

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.embedded import EmbeddedServer
from langgraph_redis_state.errors import ServerRefusedError, ThreadBusyError
from langgraph_redis_state.operations import removal_plan
from langgraph_redis_state.operations.retention import is_due
from langgraph_redis_state.scripts.commands import LIST, REMOVE
from langgraph_redis_state.storage.codec import DIGEST, Integrity
from langgraph_redis_state.storage.keys import ThreadKeys
from langgraph_redis_state.storage.records import RecordKey, open_record
from langgraph_redis_state.storage.thread_fields import split_writes

T = {"configurable": {"thread_id": "t"}}
KILLS = times(3, 12, 100)


class State(TypedDict):
    log: Annotated[list[str], operator.add]


def put(saver: RedisSaver, values: Any = None, parent: str | None = None, ns: str = "", **more: Any) -> str:
    made = checkpoint(values)
    return id_of(saver.put(at("t", ns, parent), made, metadata(**more), made["channel_versions"]))


def chain(saver: RedisSaver, length: int, ns: str = "", **more: Any) -> list[str]:
    made: list[str] = []
    for n in range(length):
        made.append(put(saver, {"n": n}, made[-1] if made else None, ns, **more))
    return made


def everything(saver: RedisSaver, thread: str = "t") -> list[Any]:
    """Every tuple of a thread, but for the thread's name: each is verified on the way."""
    found = [plain(each) for each in saver.list(at(thread, None))]
    for each in found:
        for place in ("config", "parent"):
            each[place] = each[place] and each[place][1:]
    return found


def roots(saver: RedisSaver, thread: str = "t") -> list[str]:
    return [version.checkpoint_id for version in saver.history(thread)]


def assert_tidy(raw: Any, prefix: str, thread: str = "t") -> None:
    """Every chunk and page of a thread is referred to, every reference is there, and the counts are right."""
    keys = ThreadKeys(prefix, thread.encode())
    fields = raw.hgetall(keys.hash)
    wanted: set[bytes] = set()
    checkpoints = writes = 0
    for name, content in fields.items():
        kind = name[:1]
        if kind not in (b"C", b"W"):
            continue
        ns, _, id = name[1:].rpartition(b"\0")
        place = RecordKey(prefix.encode(), keys.name, kind, ns, id)
        for record in [content] if kind == b"C" else split_writes(content, place):
            header, _ = open_record(record, place, Integrity([], False))
            checkpoints, writes = checkpoints + (kind == b"C"), writes + (kind == b"W")
            wanted |= {b"D" + digest for digest in header.loose} | {b"P" + page for page in header.pages}
            for page in header.pages:
                names = fields[b"P" + page]
                wanted |= {b"D" + names[n : n + DIGEST] for n in range(0, len(names), DIGEST)}
    assert wanted == {name for name in fields if name[:1] in (b"D", b"P")}
    line = fields[b"S"].split()
    stored = sum(len(name) + len(content) for name, content in fields.items() if name[:1] not in (b"S", b"T", b"O"))
    assert [int(part) for part in line[4:8]] == [checkpoints, writes, sum(name[:1] == b"D" for name in wanted), stored]
    members = {name for name in fields if name[:1] in (b"C", b"G")}
    members |= {
        b"A" + name[1:].rpartition(b"\0")[2] + b"\0" + name[1:].rpartition(b"\0")[0]
        for name in members
        if name[:1] == b"C" and name[1:2] != b"\0"
    }
    assert set(raw.zrange(keys.all[1], 0, -1)) == members


# --- how much -----------------------------------------------------------------------------------------------------------


def chat(saver: Any, last: int | None = None) -> Any:
    """A conversation of messages that hardly compress; `last`: how many of them a reducer keeps."""
    words = random.Random(0)

    def answer(state: Any) -> Any:
        text = " ".join(f"{words.getrandbits(30):x}" for _ in range(25))
        return {"messages": [AIMessage(text, id=f"{words.getrandbits(60):x}")]}

    window = TypedDict("Window", {"messages": Annotated[list[Any], lambda old, new: [*old, *new][-last:]]})  # noqa: UP013
    built = StateGraph(window if last else MessagesState).add_node("answer", answer).add_edge(START, "answer")
    return built.compile(checkpointer=saver)


def talk(graph: Any, saver: RedisSaver, turns: int) -> list[int]:
    """Stored bytes after each turn of two messages."""
    sizes = []
    for n in range(turns):
        graph.invoke({"messages": [HumanMessage(f"message {n}", id=f"h{n}")]}, T)
        sizes.append(saver.stats("t").stored_bytes)
    return sizes


@pytest.mark.longer
def test_a_chat_with_a_window_stays_flat(url: str, prefix: str, raw: Any) -> None:
    with RedisSaver(url, prefix=prefix, max_versions=20) as saver:
        sizes = talk(chat(saver, last=20), saver, times(120, 250))
        assert max(sizes[30:]) < 1.3 * max(sizes[15:30])
        assert max(sizes[100:]) < 1.3 * max(sizes[30:60])
        assert 20 <= len(roots(saver)) <= 25
        assert_tidy(raw, prefix)


@pytest.mark.longer
def test_a_growing_chat_costs_its_messages_and_not_their_history(url: str, prefix: str, raw: Any) -> None:
    with RedisSaver(url, prefix=prefix, max_versions=20) as saver:
        sizes = talk(chat(saver), saver, times(120, 250))
        newest = saver.get_tuple(T)
        alone = {**newest.checkpoint, "id": new_id()}
        saver.put(at("alone"), alone, metadata(), alone["channel_versions"])
        assert sizes[-1] < saver.stats("alone").stored_bytes + 30_000  # 20 records, and their last chunks
        assert sizes[-1] < 2.1 * sizes[len(sizes) // 2]
        assert 20 <= len(roots(saver)) <= 25
        assert_tidy(raw, prefix)


@pytest.mark.longer
def test_without_retention_a_chat_grows_with_its_messages_and_not_with_their_square(saver: RedisSaver) -> None:
    sizes = talk(chat(saver), saver, times(80, 125))
    assert sizes[-1] < 2.5 * sizes[len(sizes) // 2]  # 4 would be its square
    assert saver.stats("t").ratio > 10


def test_no_put_pays_for_retention_alone(url: str, prefix: str, raw: Any) -> None:
    with RedisSaver(url, prefix=prefix, max_versions=40) as saver:
        last = None
        before = raw.info("commandstats").get("cmdstat_hdel", {}).get("calls", 0)
        for n in range(200):
            last = put(saver, {"n": n}, last)
            assert len(roots(saver)) <= 50
        clean_ups = raw.info("commandstats")["cmdstat_hdel"]["calls"] - before
        assert 10 <= clean_ups <= 20


def fan_out(saver: Any, wide: int) -> Any:
    """plan -> `wide` calls of a subgraph of two steps at once"""

    class Part(TypedDict):
        n: int
        log: list[str]

    window = TypedDict("Window", {"log": Annotated[list[str], lambda old, new: [*old, *new][-40:]]})  # noqa: UP013
    sub = StateGraph(Part).add_node("work", lambda part: {"log": [f"{part['n']} " + "x" * 40]})
    sub.add_edge(START, "work")
    built = StateGraph(window).add_node("plan", lambda _: {}).add_node("sub", sub.compile()).add_edge(START, "plan")
    built.add_conditional_edges("plan", lambda _: [Send("sub", {"n": n, "log": []}) for n in range(wide)])
    return built.compile(checkpointer=saver)


@pytest.mark.longer
def test_calls_of_subgraphs_go_with_the_step_that_called_them(url: str, prefix: str, raw: Any) -> None:
    with RedisSaver(url, prefix=prefix, max_versions=5) as saver:
        wide = times(8, 20)
        graph = fan_out(saver, wide)
        sizes, counts = [], []
        for n in range(times(20, 30)):
            graph.invoke({"log": [f"{n}"]}, T)
            counts.append(saver.stats("t").checkpoints)
            sizes.append(saver.stats("t").stored_bytes)
        # the calls of some invokes: a clean-up that meets other writes of the run is left to the next put
        assert max(counts) < 5 * (3 + wide * 3)
        assert max(sizes) < 5 * min(sizes[3:])
        spaces = {each.config["configurable"]["checkpoint_ns"] for each in saver.list(at("t", None))}
        assert len(spaces) <= 1 + wide * 5
        assert_tidy(raw, prefix)


# --- what stays ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_the_newest_checkpoints_stay_and_can_be_read(url: str, prefix: str, raw: Any, limit: int) -> None:
    with RedisSaver(url, prefix=prefix, max_versions=limit) as saver:
        made: list[str] = []
        for n in range(30):
            made.append(put(saver, {"n": n, "big": ["x" * 100] * 50}, made[-1] if made else None))
            found = roots(saver)
            assert found == made[::-1][: len(found)]
            assert min(n + 1, limit) <= len(found) <= limit + max(1, limit // 4)
            assert saver.get_tuple(at("t")).checkpoint["channel_values"]["n"] == n
        assert_tidy(raw, prefix)
        if limit == 1:
            assert len(found) == 1  # shallow


async def test_max_versions_one_runs_a_graph_and_resumes_it(url: str, prefix: str, raw: Any) -> None:
    async with RedisSaver(url, prefix=prefix, max_versions=1) as saver:
        built = StateGraph(State).add_node("a", lambda _: {"log": ["a"]}).add_node("ask", lambda _: {"log": [interrupt("?")]})
        graph = built.add_edge(START, "a").add_edge("a", "ask").compile(checkpointer=saver)
        for n in range(5):
            await graph.ainvoke({"log": [f"in {n}"]}, T)
            result = await graph.ainvoke(Command(resume=f"yes {n}"), T)
        assert result["log"] == [each for n in range(5) for each in (f"in {n}", "a", f"yes {n}")]
        assert len(roots(saver)) == 1
        assert_tidy(raw, prefix)


@pytest.mark.parametrize("limit", [None, 1_000])
def test_old_checkpoints_go_by_age_and_the_newest_stays(url: str, prefix: str, raw: Any, limit: int | None) -> None:
    with RedisSaver(url, prefix=prefix, max_age=timedelta(seconds=1), max_versions=limit) as saver:
        old = chain(saver, 7)
        assert len(roots(saver)) == 7
        time.sleep(1.05)  # their age is the condition
        young: list[str] = []
        while set(roots(saver)) & set(old):
            young.append(put(saver, {}, young[-1] if young else old[-1]))
            assert len(young) <= 9
        assert roots(saver) == young[::-1]
        assert_tidy(raw, prefix)


def test_looking_for_old_checkpoints_costs_a_share_of_the_writes_however_long_the_thread() -> None:
    due = [roots for roots in range(1, 100_000) if is_due(roots, None, 60_000)]
    assert due[:4] == [8, 16, 24, 32]
    assert sum(due) < 10 * 100_000  # headers read, each time all of them: less than ten for each put
    assert all(after - before <= max(8, before / 4) for before, after in pairwise(due))


def test_an_interrupt_that_waits_and_a_tag_stay_whatever_comes_after(url: str, prefix: str) -> None:
    with RedisSaver(url, prefix=prefix, max_versions=2) as saver:
        runs: Counter[str] = Counter()

        def ask(state: State) -> Any:
            runs["ask"] += 1
            return {"log": [interrupt("?")]}

        built = StateGraph(State).add_node("a", lambda _: {"log": ["a"]}).add_node("ask", ask)
        graph = built.add_edge(START, "a").add_edge("a", "ask").compile(checkpointer=saver)
        graph.invoke({"log": ["in"]}, T)
        waiting = saver.get_tuple(T)
        side = put(saver, {}, id_of(waiting.parent_config))  # another branch, which runs on
        for _ in range(20):
            side = put(saver, {}, side)
        assert plain(saver.get_tuple(waiting.config)) == plain(waiting)
        saver.rollback("t", id_of(waiting.config), mode="truncate")
        assert graph.invoke(Command(resume="yes"), T)["log"] == ["in", "a", "yes"]
        for _ in range(5):
            graph.invoke({"log": ["more"]}, T)
            graph.invoke(Command(resume="yes"), T)
        assert id_of(waiting.config) not in roots(saver)  # once answered it goes like any other


@pytest.mark.parametrize("limit", [1, 2])
@pytest.mark.parametrize("as_subgraph", [False, True])
def test_a_chain_of_three_tools_that_ask_runs_each_once(url: str, prefix: str, limit: int, as_subgraph: bool) -> None:
    runs: Counter[str] = Counter()

    def tool(name: str) -> Any:
        def run(state: State) -> Any:
            answer = interrupt(f"{name}?")
            runs[name] += 1
            return {"log": [f"{name}={answer}"]}

        return run

    with RedisSaver(url, prefix=prefix, max_versions=limit) as saver:
        tools = StateGraph(State).add_sequence([(name, tool(name)) for name in "abc"]).add_edge(START, "a")
        if as_subgraph:
            plan = lambda _: runs.update(["plan"]) or {"log": ["plan"]}  # noqa: E731
            built = StateGraph(State).add_node("plan", plan).add_node("tools", tools.compile())
            graph = built.add_edge(START, "plan").add_edge("plan", "tools").compile(checkpointer=saver)
        else:
            graph = tools.compile(checkpointer=saver)
        result = graph.invoke({"log": ["in"]}, T)
        for name in "abc":
            assert [each.value for each in result["__interrupt__"]] == [f"{name}?"]
            saver.prune(["t"], keep_last=limit)
            result = graph.invoke(Command(resume=f"ok {name}"), T)
        assert result["log"][-3:] == ["a=ok a", "b=ok b", "c=ok c"]
        assert set(runs.values()) == {1}


def test_parallel_tools_that_ask_survive_retention_between_the_answers(url: str, prefix: str) -> None:
    runs: Counter[str] = Counter()

    def tool(name: str) -> Any:
        def run(state: State) -> Any:
            answer = interrupt(f"{name}?") if name != "d" else ""
            runs[name] += 1
            return {"log": [f"{name}={answer}"]}

        return run

    with RedisSaver(url, prefix=prefix, max_versions=1) as saver:
        built = StateGraph(State)
        for name in "abcd":
            built.add_node(name, tool(name)).add_edge(START, name)
        graph = built.compile(checkpointer=saver)
        result = graph.invoke({"log": ["in"]}, T)
        while waiting := result.get("__interrupt__"):
            saver.prune(["t"], keep_last=1)
            result = graph.invoke(Command(resume={waiting[0].id: f"ok {waiting[0].value}"}), T)
        assert result["log"] == ["in", "a=ok a?", "b=ok b?", "c=ok c?", "d="]
        assert runs == {"a": 1, "b": 1, "c": 1, "d": 1}


def joined(state: list[str], writes: list[list[str]]) -> list[str]:
    return [*state, *(each for write in writes for each in write)]


def delta_chat(saver: Any, every: int, ask: bool) -> Any:
    log = Annotated[list, DeltaChannel(joined, snapshot_frequency=every)]
    state = TypedDict("Delta", {"log": log, "n": int})  # noqa: UP013

    def a(state: Any) -> Any:
        return {"log": [f"a saw {len(state['log'])}"], "n": len(state["log"])}

    def b(state: Any) -> Any:
        return {"log": [interrupt("?") if ask else "b", f"b saw {len(state['log'])}"]}

    return StateGraph(state).add_sequence([a, b]).add_edge(START, "a").compile(checkpointer=saver)


@pytest.mark.parametrize("limit", [1, 2])
@pytest.mark.parametrize("every", [1, 3, 100])
@pytest.mark.parametrize("ask", [False, True])
def test_delta_channels_are_rebuilt_right_whatever_was_dropped(
    url: str, prefix: str, memory: InMemorySaver, limit: int, every: int, ask: bool
) -> None:
    with RedisSaver(url, prefix=prefix, max_versions=limit) as saver:
        graph, reference = delta_chat(saver, every, ask), delta_chat(memory, every, ask)
        for n in range(8):
            results = []
            for each in (graph, reference):
                result = each.invoke({"log": [f"in {n}"]}, T)
                if ask:
                    each.get_state(T)
                    result = each.invoke(Command(resume=f"yes {n}"), T)
                results.append(result["log"])
            assert results[0] == results[1]
            assert graph.get_state(T).values == reference.get_state(T).values
            if n == 4:
                saver.prune(["t"], keep_last=1)
                assert graph.get_state(T).values == reference.get_state(T).values
        expected = {state.metadata["step"]: state.values for state in reference.get_state_history(T)}
        for state in graph.get_state_history(T):  # none of those that are kept for others is broken
            assert state.values == expected[state.metadata["step"]]
        if every < 100:
            assert len(roots(saver)) < 24


# --- prune --------------------------------------------------------------------------------------------------------------


async def test_prune_keeps_the_last_of_a_thread(saver: RedisSaver, asaver: RedisSaver, raw: Any, prefix: str) -> None:
    made = chain(saver, 10)
    owned = [put(saver, {}, None, f"sub:{n}", parents={"": made[n]}) for n in (3, 7, 9)]
    plain_ns = [put(saver, {}, None, "memory", parents={"": made[n]}) for n in (2, 5)]
    saver.prune(["t", "no such thread"], keep_last=4)
    assert roots(saver) == made[:5:-1]
    spaces = {each.config["configurable"]["checkpoint_ns"]: id_of(each.config) for each in saver.list(at("t", None))}
    del spaces[""]
    assert spaces == {"sub:7": owned[1], "sub:9": owned[2], "memory": plain_ns[1]}
    assert_tidy(raw, prefix)
    await asaver.aprune(["t"], keep_last=1)
    assert roots(saver) == made[:8:-1]
    assert_tidy(raw, prefix)
    for bad in (0, -1, True):
        with pytest.raises(ValueError, match="keep_last"):
            saver.prune(["t"], keep_last=bad)
    with pytest.raises(ValueError, match="keep_last"):
        saver.prune(["t"], strategy="delete", keep_last=1)
    assert roots(saver) == made[:8:-1]


def test_what_overtook_the_first_checkpoint_of_its_root_is_not_pruned(saver: RedisSaver) -> None:
    first, second = (put(saver, ns="sub", parents={"": "on its way"}) for _ in range(2))
    saver.prune(["t"], keep_last=1)
    assert [id_of(found.config) for found in saver.list(at("t", "sub"))] == [second, first]


def test_a_branch_that_ended_is_pruned_by_its_age_in_ids(saver: RedisSaver) -> None:
    made = chain(saver, 3)
    side = put(saver, {"side": 1}, made[0])
    saver.prune(["t"], keep_last=2)
    assert roots(saver) == [side, made[2]]
    assert saver.get_tuple(at("t", "", side)).checkpoint["channel_values"] == {"side": 1}


@pytest.mark.parametrize("remade", [removal_plan.REMADE, -1000], ids=["what is less", "anew"])
def test_on_a_full_server_one_can_prune_truncate_and_delete(remade: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal_plan, "REMADE", remade)
    with EmbeddedServer.start() as server, redis.Redis.from_url(server.url) as client:
        with RedisSaver(server.url, prefix="full", redis_options={"retry_on_timeout": False}) as saver:
            words = [os.urandom(300).hex() for _ in range(200)]
            for thread in ("prune", "truncate", "delete", "clock"):
                parent = None
                for n in range(20):
                    made = checkpoint({"words": words[n * 10 :], "n": n})
                    saver.put(at(thread, "", parent), made, metadata(), made["channel_versions"])
                    saver.put_writes(at(thread, "", made["id"]), [("n", n)], "task")
                    parent = made["id"]
            oldest = roots(saver, "truncate")[-5]
            client.config_set("maxmemory-policy", "noeviction")
            client.config_set("maxmemory", 1)
            with pytest.raises(ServerRefusedError, match=r"(?i)memory"):
                put(saver, {"x": 1})
            saver.prune(["prune"], keep_last=2)
            saver.rollback("truncate", oldest, mode="truncate")
            saver.delete_thread("delete")
            assert len(roots(saver, "prune")) == 2
            assert len(roots(saver, "truncate")) == 5
            assert saver.get_tuple(at("delete")) is None
            client.config_set("maxmemory", 0)
            assert_tidy(client, "full", "prune")
            assert_tidy(client, "full", "truncate")
            put(saver, {"x": 1})


@pytest.mark.parametrize("left", [1, 2, 15, 35, 39])
def test_little_or_much_may_stay_and_all_that_is_not_checkpoints_stays_too(
    saver: RedisSaver, raw: Any, prefix: str, left: int
) -> None:
    made: list[str] = []
    for n in range(40):
        each = checkpoint({"text": f"{n} " * 200, "n": n})
        saver.put(at("t", "", made[-1] if made else None), each, metadata(), each["channel_versions"])
        saver.put_writes(at("t", "", each["id"]), [("n", n), ("text", f"{n}" * 900)], "task")
        made.append(each["id"])
    saver.put_writes(at("t", "", new_id()), [("early", "x" * 2000)], "task")
    saver.tag("t", "oldest", made[0])
    chain(saver, 3, "inner:1")
    saver.set_ttl("t", 1000)
    keys = ThreadKeys(prefix, b"t")
    settings, before = raw.hget(keys.hash, "T"), raw.pttl(keys.hash)
    writes = {name for name in raw.hkeys(keys.hash) if name[:1] == b"W"}
    saver.prune(["t"], keep_last=left)
    assert [each.checkpoint_id for each in saver.history("t")] == [*made[-left:][::-1], made[0]][: left + 1]
    assert saver.tags("t") == {"oldest": made[0]}
    assert raw.hget(keys.hash, "T") == settings
    times = [raw.pttl(key) for key in keys.all[:2]]
    assert all(before - 60_000 < each <= before for each in times)
    assert raw.zscore(keys.all[3], "t") is not None
    assert len(writes) - 39 + left == len([name for name in raw.hkeys(keys.hash) if name[:1] == b"W"])
    assert_tidy(raw, prefix)


@pytest.mark.longer
def test_leaving_a_few_of_many_holds_the_server_no_longer_than_reading_a_page_of_them() -> None:
    with EmbeddedServer.start() as server, redis.Redis.from_url(server.url) as client:
        with RedisSaver(server.url, prefix="many") as saver:
            chain(saver, times(1500, 3000, 3000))
            saver.copy_thread("t", "warm")
            saver.prune(["warm"], keep_last=10)  # from here on scripts are called by name
            client.config_set("slowlog-max-len", 100_000)
            client.config_set("slowlog-log-slower-than", 0)
            saver.prune(["t"], keep_last=10)
            client.config_set("slowlog-log-slower-than", -1)
            assert len(roots(saver)) == 10
            assert_tidy(client, "many")
            longest: dict[bytes, int] = {}
            for entry in client.slowlog_get(100_000):
                command, _, rest = entry["command"].partition(b" ")
                if command.upper() == b"EVALSHA":
                    name = rest.split()[0]
                    longest[name] = max(longest.get(name, 0), entry["duration"])
            assert longest[REMOVE.sha] < 2 * longest[LIST.sha]


# --- at the same time, and halfway --------------------------------------------------------------------------------------

WRITER = """
import random, sys
sys.path.insert(0, sys.argv[3])
from shapes import at, checkpoint, metadata
from langgraph_redis_state import RedisSaver

dice = random.Random(sys.argv[4])
words = [f"{dice.getrandbits(64):x} " * 4 for _ in range(120)]
print("ready", flush=True)
sys.stdin.readline()
with RedisSaver(sys.argv[1], prefix=sys.argv[2], max_versions=4) as saver:
    parent = None
    for n in range(40):
        at_ = dice.randrange(len(words))
        words[at_ : at_ + 2] = [f"{n} {dice.getrandbits(64):x} " * 4] * dice.randrange(1, 4)
        made = checkpoint({"words": list(words), "sum": "".join(words)})
        saver.put(at("t", "", parent), made, metadata(), made["channel_versions"])
        saver.put_writes(at("t", "", made["id"]), [("words", words[:40])], f"task {n}")
        parent = made["id"]
print("done", flush=True)
"""


def test_every_read_verifies_while_four_processes_write_and_retention_runs(
    saver: RedisSaver, url: str, prefix: str, raw: Any
) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, url, prefix, str(Path(__file__).parent), str(n)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(4)
    ]
    try:
        for process in processes:
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        reads = 0
        while any(process.poll() is None for process in processes):
            found = saver.get_tuple(at("t"))  # raises if a checksum, a chunk or a page is wrong or missing
            if found is not None:
                values = found.checkpoint["channel_values"]
                assert "".join(values["words"]) == values["sum"]
                reads += 1
            if reads % 5 == 0:
                try:
                    saver.prune(["t"], keep_last=2)
                except ThreadBusyError:
                    continue
        assert [process.wait() for process in processes] == [0, 0, 0, 0]
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert reads > 20
    for found in saver.list(at("t")):
        assert "".join(found.checkpoint["channel_values"]["words"]) == found.checkpoint["channel_values"]["sum"]
    assert_tidy(raw, prefix)
    last = saver.get_tuple(at("t"))
    put(saver, last.checkpoint["channel_values"], id_of(last.config))
    saver.prune(["t"], keep_last=1)
    assert len(roots(saver)) == 1
    assert_tidy(raw, prefix)


KILLED = """
import os, random, signal, sys, time
from langgraph_redis_state import RedisSaver
from langgraph_redis_state.operations import removal_plan

url, prefix, goal, kills = sys.argv[1:5]

def anew():
    removal_plan.REMADE = -1000

what = {
    "truncate": lambda saver, n: saver.rollback(f"truncate {n}", goal, mode="truncate"),
    "prune": lambda saver, n: saver.prune([f"prune {n}"], keep_last=3),
    "anew": lambda saver, n: anew() or saver.prune([f"anew {n}"], keep_last=3),
    "copy": lambda saver, n: saver.copy_thread("template", f"copy {n}"),
}
dice = random.Random(1)

def start(kind, n):
    # a process that says when it begins and when it is through
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        saver = RedisSaver(url, prefix=prefix)
        saver.ping()
        os.write(theirs, b"b")
        what[kind](saver, n)
        os.write(theirs, b"e")
        os._exit(0)
    os.close(theirs)
    assert os.read(ours, 1) == b"b"
    return child, ours

for kind in what:
    times = []
    for n in range(4):
        begun = time.perf_counter()
        child, ours = start(kind, f"timed {n}")
        begun = time.perf_counter()
        os.read(ours, 1)
        times.append(time.perf_counter() - begun)
        os.waitpid(child, 0)
        os.close(ours)
    for n in range(int(kills)):
        child, ours = start(kind, n)
        until = time.perf_counter() + dice.uniform(0, 2 * sorted(times)[2])
        while time.perf_counter() < until:
            pass
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ours)
"""


@pytest.mark.longer
def test_a_client_killed_at_any_moment_leaves_a_thread_as_before_or_as_after(
    saver: RedisSaver, url: str, prefix: str, raw: Any
) -> None:
    dice, words, made = random.Random(2), [], []
    for n in range(24):
        words = [*words, *(f"{dice.getrandbits(64):x} " * 3 for _ in range(20))]
        each = checkpoint({"words": words, "n": n})
        saver.put(at("template", "", made[-1] if made else None), each, metadata(), each["channel_versions"])
        saver.put_writes(at("template", "", each["id"]), [("words", words[-30:])], "task")
        made.append(each["id"])
    saver.tag("template", "name", made[2])
    before = everything(saver, "template")
    after = {}
    threads = [*(f"timed {n}" for n in range(4)), *range(KILLS)]
    for kind in ("truncate", "prune", "anew"):
        for n in (*threads, "whole"):
            saver.copy_thread("template", f"{kind} {n}")
        if kind == "truncate":
            saver.rollback("truncate whole", made[8], mode="truncate")
        else:
            saver.prune([f"{kind} whole"], keep_last=3)
        after[kind] = everything(saver, f"{kind} whole")
    assert len(before) == 24
    assert (len(after["truncate"]), len(after["prune"])) == (9, 4)
    after["copy"], nothing = before, []
    subprocess.run([sys.executable, "-c", KILLED, url, prefix, made[8], str(KILLS)], check=True)
    for kind in ("truncate", "prune", "anew", "copy"):
        outcomes: Counter[str] = Counter()
        for n in range(KILLS):
            found = everything(saver, f"{kind} {n}")
            states = {"before": nothing if kind == "copy" else before, "after": after[kind]}
            (outcome,) = [name for name, state in states.items() if found == state]
            outcomes[outcome] += 1
            if found:
                assert_tidy(raw, prefix, f"{kind} {n}")
                assert saver.tags(f"{kind} {n}") == {"name": made[2]}
        if KILLS >= 50:  # of few, each may have been too fast, or too slow
            assert outcomes["before"]
            assert outcomes["after"]
    assert all(raw.pttl(key) > 0 for key in raw.scan_iter(match=f"{prefix}:*:u:*", count=10_000))  # staging of the killed
