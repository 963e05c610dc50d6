"""Random histories, shaped as LangGraph writes them, on four savers: every tuple must be equal."""

from __future__ import annotations

import asyncio
import uuid
from copy import deepcopy
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from langchain_core.messages import HumanMessage
from langgraph.checkpoint.serde.types import ERROR, INTERRUPT, RESUME, SCHEDULED, _DeltaSnapshot
from reference import DELTA, EXTRAS, FILTERS, RUNS, SPACES, THREADS, TOUCHED, Memory, Reference
from shapes import at, checkpoint, difference, new_id, plain
from soak import LEVEL, times

from langgraph_redis_state import RedisSaver
from langgraph_redis_state.errors import CheckpointLostError, ThreadDeletedError, ThreadExistsError, ThreadNotFoundError

COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True}
PROFILE = settings(
    max_examples=times(3, 30, 1_000),
    stateful_step_count=times(22, 40, 80),
    phases=[Phase.explicit, Phase.reuse, Phase.generate, *([Phase.shrink] if LEVEL == 2 else [])],
    **COMMON,
)

VALUES: list[Any] = [
    *(None, 0, 1, -5, 2**40, "", "é", "text " * 30, b"", b"\xff", (1, True), [], {}, float("nan"), [0.5, None]),
    *({1: "one", "a": [1]}, {"d": [1]}, HumanMessage("", id="x"), [HumanMessage("hi", id="y")], {"s": {1}}),
]
small = st.sampled_from(VALUES)
growth = st.integers(1, 60)
edits = st.sampled_from(["append", "append", "append", "trim", "edit", "replace", "clear"])
threads = st.sampled_from([THREADS[0], *THREADS])
spaces = st.sampled_from(["", "", *SPACES])
picks = st.integers(0, 10**6)
"""Chooses one of what there is at that moment."""
task_writes = st.tuples(
    st.integers(0, 4),
    st.sampled_from(["", "~__pregel_pull, a", "~__pregel_pull, b", "~__pregel_push, 0000000010"]),
    st.sampled_from(
        [
            *([DELTA], [DELTA], ["a", DELTA], [DELTA, "a", DELTA], [DELTA] * 12, ["a", *[DELTA] * 10, INTERRUPT]),
            *([INTERRUPT], [INTERRUPT, INTERRUPT], [RESUME], [ERROR, "a"], [SCHEDULED, DELTA, RESUME, ERROR], []),
        ]
    ),
    small,
)
"""What one task writes: who it is, its path, the channels, and the first value."""
supersteps = st.fixed_dictionaries(
    {
        "touched": st.sampled_from(TOUCHED),
        "value": small,
        "edit": edits,
        "by": growth,
        "snapshot": st.booleans(),
        "extra": st.sampled_from(EXTRAS),
        "writes": st.one_of(st.none(), task_writes),
        "switch": st.booleans(),
    }
)
STEP = {"touched": {"a"}, "value": "settled", "edit": "append", "by": 1, "snapshot": False, "extra": {}}
outside = st.booleans()
"""Whether the other process does it."""


class Histories(RuleBasedStateMachine):
    url: str

    def __init__(self) -> None:
        super().__init__()
        self.prefix = prefix = f"d-{uuid.uuid4().hex[:12]}"
        self.loop = asyncio.new_event_loop()
        self.reference, self.memory = Reference(), Memory()
        self.one = RedisSaver(self.url, prefix=prefix)
        self.other = RedisSaver(self.url, prefix=prefix, compression="zlib")
        self.awaited = RedisSaver(self.url, prefix=f"{prefix}-a")
        self.style: dict[str, str] = {}
        self.deleted: dict[str, list[tuple[str, str]]] = {thread: [] for thread in THREADS}
        """Per thread with a tombstone: what it held when it was deleted."""
        self.refuses: set[str] = set()
        self.early: dict[tuple[str, str], str] = {}
        """Checkpoint ids that have writes and no checkpoint yet."""
        self.made = self.written = self.deletions = 0

    def teardown(self) -> None:
        try:
            for thread in THREADS:
                self.same("list", at(thread, None))
            self.same_everywhere()
            for saver in (self.one, self.awaited):
                # a write that was replaced leaves chunks until the next removal
                assert [each for each in saver.verify() if each.kind != "orphan"] == []
        finally:
            self.one.close()
            self.other.close()
            self.loop.run_until_complete(self.awaited.aclose())
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.close()

    # what is done, on all four -----------------------------------------------------------------------------------------

    def ask(self, saver: Any, verb: str, *arguments: Any, **options: Any) -> Any:
        """What a saver answers; a refusal is an answer too."""
        try:
            if saver is self.awaited:
                answer = self.loop.run_until_complete(self.awaiting(verb, *arguments, **options))
            else:
                answer = getattr(saver, verb)(*arguments, **options)
            if verb == "list":
                return [plain(found) for found in answer]
            return plain(answer) if verb == "get_tuple" else answer
        except (CheckpointLostError, ThreadDeletedError, ThreadExistsError, ThreadNotFoundError) as refusal:
            return type(refusal)

    async def awaiting(self, verb: str, *arguments: Any, **options: Any) -> Any:
        answer = getattr(self.awaited, f"a{verb}")(*arguments, **options)
        return [found async for found in answer] if verb == "list" else await answer

    def own(self, thread: str) -> bool:
        """Whether versions are InMemorySaver's, so that it may be compared itself."""
        return self.style.get(thread) == "memory"

    def do(self, thread: str, by_other: bool, verb: str, *arguments: Any, **options: Any) -> Any:
        """A write, by one of the two that share a prefix; all must answer alike."""
        expected = self.ask(self.reference, verb, *deepcopy(arguments), **options)
        self.ask(self.memory, verb, *deepcopy(arguments), **options)
        for saver in (self.other if by_other else self.one, self.awaited):
            found = self.ask(saver, verb, *deepcopy(arguments), **options)
            if isinstance(expected, dict):
                found = {"configurable": {name: found["configurable"][name] for name in expected["configurable"]}}
            assert found == expected, f"{self.name(saver)}.{verb}: {found!r}, not {expected!r}"
        return expected

    def refused(self, by_other: bool, verb: str, *arguments: Any) -> None:
        for saver in (self.other if by_other else self.one, self.awaited):
            found = self.ask(saver, verb, *deepcopy(arguments))
            assert found is ThreadDeletedError, f"{self.name(saver)}.{verb}: {found!r}, not ThreadDeletedError"

    def same(self, verb: str, config: Any, **options: Any) -> Any:
        """A read: all must give the same."""
        expected = self.ask(self.reference, verb, config, **options)
        thread = config["configurable"]["thread_id"]
        for saver in (self.one, self.other, self.awaited, *((self.memory,) if self.own(thread) else ())):
            found = self.ask(saver, verb, config, **options)
            differs = difference(expected, found)
            assert differs is None, f"{self.name(saver)}.{verb}({config}, {options}): {differs}"
        return expected

    def same_everywhere(self) -> None:
        """`list(None)`: thread by thread. Which thread comes first depends on the clock, and has its own test."""
        expected = {thread: self.ask(self.reference, "list", at(thread, None)) for thread in THREADS}
        for saver in (self.one, self.other, self.awaited):
            found = self.ask(saver, "list", None)
            order = list(dict.fromkeys(told["config"][0] for told in found))
            assert sorted(order) == sorted(thread for thread in THREADS if expected[thread])
            differs = difference([told for thread in order for told in expected[thread]], found)
            assert differs is None, f"{self.name(saver)}.list(None): {differs}"
            assert difference(found[:2], self.ask(saver, "list", None, limit=2)) is None

    def name(self, saver: Any) -> str:
        return next(name for name, value in vars(self).items() if value is saver)

    # what there is to choose from --------------------------------------------------------------------------------------

    def pick(self, among: list[Any], pick: int) -> Any:
        """The newest for small numbers, as a graph goes on from it most of the time."""
        return among[-1] if pick % 3 else among[pick // 3 % len(among)]

    def stored(self, thread: str, ns: str | None = None) -> list[tuple[str, str]]:
        """(id, namespace) of what is there, oldest first."""
        return sorted((id, space) for _, space, id, _ in self.reference.each(thread) if ns is None or ns == space)

    def next_version(self, thread: str, current: Any) -> Any:
        style = self.style[thread]
        if style == "memory":
            return self.memory.get_next_version(current, None)
        if style == "number":
            return (current or 0) + 1
        asked = {saver.get_next_version(current, None) for saver in (self.one, self.other, self.awaited)}
        assert len(asked) == 1
        return asked.pop()

    @initialize(styles=st.lists(st.sampled_from(["memory", "own", "number"]), min_size=3, max_size=3))
    def begin(self, styles: list[str]) -> None:
        self.style = dict(zip(THREADS, styles, strict=True))

    # the rules ---------------------------------------------------------------------------------------------------------

    @rule(
        thread=threads,
        ns=spaces,
        steps=st.lists(supersteps, min_size=2, max_size=8),
        run=st.sampled_from([None, *RUNS]),
        by_other=outside,
    )
    def go_on(self, thread: str, ns: str, steps: list[dict[str, Any]], run: str | None, by_other: bool) -> None:
        there = self.stored(thread, ns)
        self.run(thread, ns, there[-1][0] if there else None, steps, run, by_other)

    @precondition(lambda self: self.made)
    @rule(
        thread=threads,
        ns=spaces,
        pick=picks,
        fresh=st.sampled_from([True, *[False] * 4]),
        steps=st.lists(supersteps, min_size=1, max_size=4),
        run=st.sampled_from([None, *RUNS]),
        by_other=outside,
    )
    def fork(
        self, thread: str, ns: str, pick: int, fresh: bool, steps: list[dict[str, Any]], run: str | None, by_other: bool
    ) -> None:
        """From an old checkpoint, or a run without a parent in a thread that has a history."""
        there = self.stored(thread, ns)
        parent = there[pick % len(there)][0] if there and not fresh else None
        self.run(thread, ns, parent, steps, run, by_other)

    def run(
        self, thread: str, ns: str, parent: str | None, steps: list[dict[str, Any]], run: str | None, by_other: bool
    ) -> None:
        for step in steps:
            if parent and step["writes"]:
                self.write(at(thread, ns, parent), step["writes"], by_other)
            by_other ^= step["switch"]
            parent = self.superstep(thread, ns, parent, run, by_other, **step)

    def superstep(
        self,
        thread: str,
        ns: str,
        parent: str | None,
        run: str | None,
        by_other: bool,
        *,
        touched: set[str],
        value: Any,
        edit: str,
        by: int,
        snapshot: bool,
        extra: dict[str, Any],
        **_: Any,
    ) -> str:
        base = self.ask(self.reference, "get_tuple", at(thread, ns, parent)) if parent else None
        versions = dict(base["checkpoint"]["channel_versions"]) if base else {}
        values = dict(base["checkpoint"]["channel_values"]) if base else {}
        counters = dict(base["metadata"].get("counters_since_delta_snapshot", {})) if base else {}
        new = {}
        for channel in sorted(touched):
            versions[channel] = new[channel] = self.next_version(thread, versions.get(channel))
        for channel in touched & {"a", "b"}:
            values[channel] = value
        if "big" in touched:
            values["big"] = self.edited(values.get("big", []), edit, by)
        if "gone" in touched and values.pop("gone", None) is None:  # there in one step, empty in the next
            values["gone"] = [value]
        values.pop(DELTA, None)  # LangGraph hands a DeltaChannel's value over only in the step that snapshots it
        if DELTA in versions:
            updates, since = counters.get(DELTA, (0, 0))
            counters = {DELTA: (updates + (DELTA in new), since + 1)}
            if DELTA in new and (snapshot or base is None):
                values[DELTA] = _DeltaSnapshot([value, self.made])
                counters = {}
        made = checkpoint(values, versions, id=self.early.pop((thread, ns), None))
        made["versions_seen"] = {"node": dict(new)}
        made["updated_channels"] = sorted(new)
        self.made += 1
        told = {"source": "loop", "step": self.made, "parents": self.parents(thread, ns)} | extra
        if counters:
            told["counters_since_delta_snapshot"] = counters
        config = at(thread, ns, parent, **({"run_id": run} if run and self.made % 2 else {}))
        if run and not self.made % 2:
            config["metadata"] = {"run_id": run}
        self.do(thread, by_other, "put", config, made, told, new)
        self.same("get_tuple", at(thread, ns, made["id"]))
        return made["id"]

    def parents(self, thread: str, ns: str) -> dict[str, str]:
        roots = self.stored(thread, "")
        return {"": roots[-1][0]} if ns and roots else {}

    def edited(self, before: list[Any], edit: str, by: int) -> list[Any]:
        fresh = [f"message {self.made}.{n} " * 9 for n in range(by)]
        match edit:
            case "append":
                return [*before, *fresh]
            case "trim":
                return before[by:]
            case "edit":
                return [*before[: by // 2], *fresh[:1], *before[by // 2 + 1 :]]
            case "replace":
                return fresh * 5
        return []

    @precondition(lambda self: self.made)
    @rule(thread=threads, ns=spaces, pick=picks, by_other=outside)
    def copy_under_the_grandparent(self, thread: str, ns: str, pick: int, by_other: bool) -> None:
        """What `update_state(as_node="__copy__")` does."""
        if not (there := self.stored(thread, ns)):
            return
        copied = self.ask(self.reference, "get_tuple", at(thread, ns, self.pick(there, pick)[0]))
        if (thread, ns) in self.early or (copied["parent"] and (copied["parent"][2], ns) not in there):
            return  # the parent was pruned: what to refuse or inherit then has its own tests
        grandparent = copied["parent"] and copied["parent"][2]
        told = {"source": "fork", "step": 0, "parents": copied["metadata"]["parents"]} | {
            name: value for name, value in copied["metadata"].items() if name == "counters_since_delta_snapshot"
        }
        if self.ghosts(thread, told["parents"].values()):
            return
        made = copied["checkpoint"] | {"id": new_id()}
        self.do(thread, by_other, "put", at(thread, ns, grandparent), made, told, {})
        found = self.same("get_tuple", at(thread, ns, made["id"]))
        assert difference(copied["checkpoint"]["channel_values"], found["checkpoint"]["channel_values"]) is None

    @precondition(lambda self: self.made)
    @rule(thread=threads, ns=spaces, pick=picks, tasks=st.lists(task_writes, min_size=1, max_size=3), by_other=outside)
    def put_writes(self, thread: str, ns: str, pick: int, tasks: list[Any], by_other: bool) -> None:
        """To what is there, of new tasks or of ones that wrote before."""
        if there := self.stored(thread, ns):
            for writes in tasks:
                self.write(at(thread, ns, self.pick(there, pick)[0]), writes, by_other)

    def write(self, config: dict[str, Any], told: Any, by_other: bool) -> None:
        task, path, channels, first = told
        self.written += 1
        writes = [(channel, [self.written, n] if n else first) for n, channel in enumerate(channels)]
        self.do(config["configurable"]["thread_id"], by_other, "put_writes", config, writes, f"{task:08x}-task", path)
        self.same("get_tuple", config)

    @precondition(lambda self: len(self.early) < 2)
    @rule(thread=threads, ns=spaces, value=small, by_other=outside)
    def put_writes_before_their_checkpoint(self, thread: str, ns: str, value: Any, by_other: bool) -> None:
        if (thread, ns) in self.early:
            return
        self.early[thread, ns] = new_id()
        config = at(thread, ns, self.early[thread, ns])
        self.do(thread, by_other, "put_writes", config, [("a", value), (INTERRUPT, value)], "early", "")
        assert self.same("get_tuple", config) is None

    @precondition(lambda self: self.made)
    @rule(
        thread=threads,
        ns=spaces,
        pick=picks,
        listing=st.lists(
            st.fixed_dictionaries(
                {
                    "ns": st.sampled_from([None, None, *SPACES]),
                    "before": st.one_of(st.none(), picks),
                    "limit": st.one_of(st.none(), st.integers(0, 5)),
                    "filter": st.sampled_from([None, None, *FILTERS]),
                }
            ),
            max_size=3,
        ),
    )
    def read(self, thread: str, ns: str, pick: int, listing: list[dict[str, Any]]) -> None:
        self.same("get_tuple", at(thread, ns))
        self.same("get_tuple", at(thread, None))
        self.same_everywhere()
        there = self.stored(thread)
        for told in listing:
            before = told["before"] is not None and there and at(thread, None, self.pick(there, told["before"])[0])
            self.same("list", at(thread, told["ns"]), before=before or None, limit=told["limit"], filter=told["filter"])
        if not there:
            return
        id, space = self.pick(there, pick)
        self.same("get_tuple", at(thread, space, id))
        self.same("get_tuple", at(thread, "nowhere", id))
        assert len(self.same("list", at(thread, space, id))) == 1
        self.rebuild_delta_channels(at(thread, space, id))

    def rebuild_delta_channels(self, config: dict[str, Any]) -> None:
        for channels in ([DELTA], ["a"], [DELTA, "a"], ["unknown"], []):
            asked = {"config": config, "channels": channels}
            expected = self.reference.get_delta_channel_history(**asked)
            for saver in (self.one, self.other, self.awaited):
                found = self.ask(saver, "get_delta_channel_history", **asked)
                if found is CheckpointLostError:
                    with self.reference.with_removed():
                        assert self.severed(config, channels), f"{self.name(saver)}: nothing is lost for {asked}"
                    continue
                # where an ancestor was removed, only what DeltaChannels are rebuilt from is kept
                kept = self.rebuilt(config, channels) if self.severed(config, channels) else channels
                told = {name: dict(sorted(found[name].items(), reverse=True)) for name in kept}
                differs = difference({name: expected[name] for name in kept}, told)
                assert differs is None, f"{self.name(saver)}: {differs}"

    def rebuilt(self, config: dict[str, Any], channels: list[str]) -> list[str]:
        """Those of the channels that LangGraph rebuilds from ancestors: DeltaChannels with a version and without a value."""
        found = self.reference.get_tuple(config)
        assert found is not None
        _, supersteps = found.metadata.get("counters_since_delta_snapshot", {}).get(DELTA, (0, 0))
        needed = DELTA in found.checkpoint["channel_versions"] and DELTA not in found.checkpoint["channel_values"]
        return [name for name in channels if name == DELTA and needed and supersteps]

    def severed(self, config: dict[str, Any], channels: list[str]) -> bool:
        """Whether an ancestor was deleted that one of the channels might have to be rebuilt from.

        InMemorySaver then rebuilds from what is left; to say so instead is right too.
        """
        found, left = self.reference.get_tuple(config), set(channels)
        while left and found and found.parent_config:
            found = self.reference.get_tuple(found.parent_config)
            left -= found.checkpoint["channel_values"].keys() if found else set()
        return bool(left) and found is None

    @precondition(lambda self: self.made > 5 and self.deletions < 3)
    @rule(thread=threads, how=st.sampled_from(["delete_thread", "prune"]), by_other=outside)
    def delete(self, thread: str, how: str, by_other: bool) -> None:
        self.deletions += 1
        if there := self.stored(thread):
            self.deleted[thread] = there
        for place in [place for place in self.early if place[0] == thread]:
            del self.early[place]
        if how == "prune":
            self.do(thread, by_other, "prune", [thread], strategy="delete")
        else:
            self.do(thread, by_other, "delete_thread", thread)
        self.refuses.add(thread)
        assert self.same("list", at(thread, None)) == []

    @precondition(lambda self: any(self.deleted[thread] for thread in self.refuses))
    @rule(pick=picks, how=st.sampled_from(["parent", "parents", "writes"]), by_other=outside)
    def write_late(self, pick: int, how: str, by_other: bool) -> None:
        """A run that began before its thread was deleted goes on."""
        thread = sorted(thread for thread in self.refuses if self.deleted[thread])[0]
        id, ns = self.pick(self.deleted[thread], pick)
        if (id, ns) in self.stored(thread):
            return
        if how == "parent":
            self.refused(by_other, "put", at(thread, ns, id), checkpoint({"a": 1}), {"parents": {}}, {"a": 1})
        elif how == "parents":
            told = {"source": "loop", "parents": {ns: id}}
            self.refused(by_other, "put", at(thread, "child:0001"), checkpoint({"a": 1}), told, {"a": 1})
        else:
            self.refused(by_other, "put_writes", at(thread, ns, id), [("a", 1)], "late", "")
        self.same("list", at(thread, None))

    def ghosts(self, thread: str, named: Any) -> bool:
        there = {id for id, _ in self.stored(thread)}
        return thread in self.refuses and any(id and id not in there for id in named)

    @precondition(lambda self: self.made > 3)
    @rule(source=threads, onto=threads, by_other=outside)
    def copy(self, source: str, onto: str, by_other: bool) -> None:
        self.settle(by_other)
        if source == onto:
            return
        answer = self.do(onto, by_other, "copy_thread", source, onto)
        if answer is None:
            self.style[onto] = self.style[source]
            if onto in self.refuses and self.deleted[onto]:  # no longer: the deletion is over
                id, ns = self.deleted[onto][-1]
                made = checkpoint({"a": 1}, {"a": self.next_version(onto, None)})
                told = {"source": "loop", "step": 0, "parents": {}}
                self.do(onto, by_other, "put", at(onto, ns, id), made, told, made["channel_versions"])
            self.refuses.discard(onto)
            self.same("list", at(onto, None))
        self.same("list", at(source, None))

    @precondition(lambda self: self.made > 3)
    @rule(thread=threads, by_other=outside)
    def prune(self, thread: str, by_other: bool) -> None:
        self.settle(by_other)
        self.do(thread, by_other, "prune", [thread], strategy="keep_latest")
        self.same("list", at(thread, None))

    @precondition(lambda self: self.made > 3)
    @rule(runs=st.lists(st.sampled_from(RUNS), max_size=2), by_other=outside)
    def delete_runs(self, runs: list[str], by_other: bool) -> None:
        self.settle(by_other)
        self.do(THREADS[0], by_other, "delete_for_runs", runs)
        for thread in THREADS:
            self.same("list", at(thread, None))

    def settle(self, by_other: bool) -> None:
        """Put the checkpoints whose writes came first: what becomes of such writes otherwise is not what this tests."""
        for thread, ns in [*self.early]:
            there = self.stored(thread, ns)
            parent = there[-1][0] if there else None
            self.superstep(thread, ns, parent, None, by_other, **STEP)

    @precondition(lambda self: self.made)
    @rule()
    def restart_the_other_process(self) -> None:
        self.other.close()
        self.other = RedisSaver(self.url, prefix=self.prefix, compression="none")
