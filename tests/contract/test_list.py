"""`list` and `get_tuple`: which checkpoints, in which order."""

from __future__ import annotations

from typing import Any

from shapes import at, id_of, ids, listed, new_id, put


async def test_before_leaves_out_the_named_id_and_everything_newer(either: Any) -> None:
    made = [id_of(await put(either, at("t"), step=n)) for n in range(5)]
    for n, bound in enumerate(made):
        assert await ids(either, at("t"), before=at("t", checkpoint_id=bound)) == made[:n][::-1]


async def test_before_compares_ids_as_strings_and_needs_no_uuid(either: Any) -> None:
    for name in ["b", "a", "c", "B", "aa", "\U00010000", "\uffff"]:
        await put(either, at("t"), id=name)
    assert await ids(either, at("t")) == ["\U00010000", "\uffff", "c", "b", "aa", "a", "B"]
    assert await ids(either, at("t"), before=at("t", checkpoint_id="b")) == ["aa", "a", "B"]


async def test_before_may_name_an_id_that_is_not_stored(either: Any) -> None:
    older = await put(either, at("t"))
    bound = new_id()
    await put(either, at("t"))
    assert await ids(either, at("t"), before=at("t", checkpoint_id=bound)) == [id_of(older)]


async def test_before_without_an_id_bounds_nothing(either: Any) -> None:
    await put(either, at("t"))
    await put(either, at("t"))
    assert len(await ids(either, at("t"), before=at("t"))) == 2


async def test_the_empty_namespace_is_the_root_and_not_any_namespace(either: Any) -> None:
    root = await put(either, at("t"), {"x": "root"})
    child = await put(either, at("t", "child:1"), {"x": "child"})
    assert await ids(either, at("t", "")) == [id_of(root)]
    assert await ids(either, at("t", "child:1")) == [id_of(child)]
    assert (await either.aget_tuple(at("t", ""))).checkpoint["channel_values"] == {"x": "root"}
    assert (await either.aget_tuple(at("t", None))).checkpoint["channel_values"] == {"x": "root"}


async def test_a_namespace_does_not_match_the_ones_it_begins(either: Any) -> None:
    spaces = ["child", "child:1", "child:1|leaf", "child:10", "child|leaf", "child\x01", "chil"]
    made = {ns: id_of(await put(either, at("t", ns))) for ns in spaces}
    for ns in spaces:
        assert await ids(either, at("t", ns)) == [made[ns]]
    assert await ids(either, at("t", "ch")) == []


async def test_without_a_namespace_a_thread_is_listed_newest_first_across_namespaces(either: Any) -> None:
    made = [id_of(await put(either, at("t", ns))) for ns in ["", "b:1", "", "a:1", "b:1", "plain", ""]]
    assert await ids(either, at("t", None)) == made[::-1]
    assert await ids(either, at("t", None), limit=3) == made[:3:-1]
    assert await ids(either, at("t", None), before=at("t", None, made[4])) == made[:4][::-1]


async def test_a_limit_of_zero_gives_nothing(either: Any) -> None:
    await put(either, at("t"))
    assert await ids(either, at("t"), limit=0) == []
    assert await ids(either, None, limit=0) == []


async def test_a_limit_counts_what_passes_the_filter(either: Any) -> None:
    made = [id_of(await put(either, at("t"), step=n, odd=n % 2)) for n in range(6)]
    assert await ids(either, at("t"), filter={"odd": 0}, limit=2) == [made[4], made[2]]
    assert await ids(either, at("t"), filter={"odd": 0}, limit=9) == [made[4], made[2], made[0]]


async def test_list_with_an_id_gives_that_checkpoint_alone(either: Any) -> None:
    made = [await put(either, at("t")) for _ in range(3)]
    assert await ids(either, made[1]) == [id_of(made[1])]
    assert await ids(either, at("t", checkpoint_id=new_id())) == []


async def test_list_without_a_config_walks_every_thread_and_the_latest_active_first(either: Any, raw: Any) -> None:
    def next_millisecond() -> None:
        began = raw.time()
        while (now := raw.time()) and now[0] * 1000 + now[1] // 1000 == began[0] * 1000 + began[1] // 1000:
            pass

    made: dict[str, list[str]] = {}
    for thread in ["a", "b", "c", "a"]:
        made.setdefault(thread, []).insert(0, id_of(await put(either, at(thread))))
        next_millisecond()
    found = await listed(either, None)
    assert [(t.config["configurable"]["thread_id"], id_of(t.config)) for t in found] == [
        (thread, checkpoint_id) for thread in "acb" for checkpoint_id in made[thread]
    ]
    assert await ids(either, None, limit=3) == [*made["a"], *made["c"]]
    assert await ids(either, None, before=at("c", checkpoint_id=made["c"][0])) == [made["a"][1], *made["b"]]


async def test_the_latest_is_the_greatest_id_and_not_the_last_put(either: Any) -> None:
    old, new = new_id(), new_id()
    await put(either, at("t"), {"x": "new"}, id=new)
    returned = await put(either, at("t"), {"x": "old"}, id=old)
    assert id_of(returned) == old
    latest = await either.aget_tuple(at("t"))
    assert (id_of(latest.config), latest.checkpoint["channel_values"]) == (new, {"x": "new"})


async def test_putting_an_old_id_again_replaces_it_and_does_not_make_it_the_latest(either: Any) -> None:
    first = await put(either, at("t"), {"x": 1})
    second = await put(either, first, {"x": 2})
    await put(either, at("t"), {"x": 10}, id=id_of(first))
    assert id_of((await either.aget_tuple(at("t"))).config) == id_of(second)
    assert (await either.aget_tuple(first)).checkpoint["channel_values"] == {"x": 10}
    assert await ids(either, at("t")) == [id_of(second), id_of(first)]


async def test_what_is_not_there_is_none_and_an_empty_list(either: Any) -> None:
    await put(either, at("t"))
    assert await either.aget_tuple(at("nobody")) is None
    assert await either.aget_tuple(at("t", "nowhere")) is None
    assert await either.aget_tuple(at("t", checkpoint_id=new_id())) is None
    assert await listed(either, at("nobody")) == []
