"""`prune`: which checkpoints stay, with everything they need."""

from __future__ import annotations

from typing import Any

import pytest
from exercise import BIG
from langgraph.checkpoint.serde.types import INTERRUPT, _DeltaSnapshot
from langgraph.types import Interrupt
from shapes import at, checkpoint, id_of, ids, listed, metadata, put


async def test_pruning_keeps_the_newest_of_each_namespace_with_its_writes(either: Any) -> None:
    newest = {}
    for thread in ("pruned", "untouched"):
        for ns in ("", "child:1", "child:2", "plain"):
            config = at(thread, ns)
            for n in range(3):
                config = await put(either, config, {"x": [*BIG, ns, n]})
                await either.aput_writes(config, [(INTERRUPT, [Interrupt(value=n, id="i")])], "task")
            newest[thread, ns] = id_of(config)
    await either.aprune(["pruned"])
    await either.aprune(["pruned"], strategy="keep_latest")
    for ns in ("", "child:1", "child:2", "plain"):
        (found,) = await listed(either, at("pruned", ns))
        assert id_of(found.config) == newest["pruned", ns]
        assert found.checkpoint["channel_values"] == {"x": [*BIG, ns, 2]}
        assert found.pending_writes == [("task", INTERRUPT, [Interrupt(value=2, id="i")])]
        assert len(await ids(either, at("untouched", ns))) == 3


async def test_pruning_keeps_what_a_delta_channel_is_rebuilt_from(either: Any) -> None:
    """`counters_since_delta_snapshot` says how many steps ago the last snapshot was; the writes since then stay."""
    config, version, made = at("t"), None, []
    for n in range(8):
        version = either.get_next_version(version, None)
        since = (n - 3, n - 3) if n > 3 else (0, 0)
        value = {"log": _DeltaSnapshot(["s"])} if n == 3 else {}
        counters = {"counters_since_delta_snapshot": {"log": since}} if n > 3 else {}
        config = await either.aput(config, checkpoint(value, {"log": version}), metadata(**counters), {"log": version})
        await either.aput_writes(config, [("log", [n])], f"task {n}")
        made.append(id_of(config))
    expected = await either.aget_delta_channel_history(config=config, channels=["log"])
    assert expected["log"]["seed"] == _DeltaSnapshot(["s"])
    assert [value for _, _, value in expected["log"]["writes"]] == [[3], [4], [5], [6]]
    await either.aprune(["t"])
    assert await ids(either, at("t")) == made[:-2:-1]
    assert await either.aget_delta_channel_history(config=config, channels=["log"]) == expected


async def test_pruning_with_an_unknown_strategy_names_the_known_ones_and_removes_nothing(either: Any) -> None:
    await put(either, at("t"))
    await put(either, at("t"))
    with pytest.raises(ValueError, match=r"(?s)keep_latest.*delete|delete.*keep_latest"):
        await either.aprune(["t"], strategy="everything")
    with pytest.raises(ValueError, match="keep_latest"):
        await either.aprune([], strategy="")
    assert len(await ids(either, at("t"))) == 2
