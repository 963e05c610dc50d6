"""A graph with `RedisSaver` for its threads and `RedisStore` for its memory, on one connection."""

from __future__ import annotations

from typing import Any

from langgraph.graph import START, MessagesState, StateGraph
from langgraph.store.base import BaseStore

from langgraph_redis_state import RedisSaver, RedisStore


def remember(state: MessagesState, *, store: BaseStore) -> dict[str, Any]:
    known = [item.value["said"] for item in store.search(("memories", "ada"))]
    store.put(("memories", "ada"), f"{len(known)}", {"said": state["messages"][-1].content})
    return {"messages": [("ai", f"You said before: {known}")]}


async def aremember(state: MessagesState, *, store: BaseStore) -> dict[str, Any]:
    known = [item.value["said"] for item in await store.asearch(("memories", "ada"))]
    await store.aput(("memories", "ada"), f"{len(known)}", {"said": state["messages"][-1].content})
    return {"messages": [("ai", f"You said before: {known}")]}


async def test_memory_of_one_thread_is_there_in_another(saver: RedisSaver, prefix: str, raw: Any) -> None:
    store = RedisStore(saver=saver, prefix=f"{prefix}:store")
    graph = StateGraph(MessagesState).add_node(remember).add_edge(START, "remember").compile(checkpointer=saver, store=store)
    agraph = StateGraph(MessagesState).add_node(aremember).add_edge(START, "aremember").compile(checkpointer=saver, store=store)
    for n, text in enumerate(("one", "two")):
        state = graph.invoke({"messages": [("user", text)]}, {"configurable": {"thread_id": f"{n}"}})
    assert state["messages"][-1].content == "You said before: ['one']"
    state = await agraph.ainvoke({"messages": [("user", "three")]}, {"configurable": {"thread_id": "a"}})
    assert state["messages"][-1].content == "You said before: ['two', 'one']"
    assert [item.value["said"] for item in store.search(("memories",))] == ["three", "two", "one"]
    store.close()  # the saver's connections stay open
    assert saver.get_tuple({"configurable": {"thread_id": "0"}}) is not None
    assert sorted(each.thread_id for each in saver.list_threads()) == ["0", "1", "a"]
    assert list(saver.verify()) == []
