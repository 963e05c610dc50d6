"""MongoDBSaver of langgraph-checkpoint-mongodb: threads, places, writes and their task paths from its two collections.

`get_tuple` of this saver does not sort writes. The server finds them by the unique index of the collection, so they come by
task id, then by index. LangGraph's order is by task path first, so the documents of the writes are read here.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from .flow import Flow
from .sources import Found, Place, Source, Write


class MongoSource(Source):
    notes = ()

    def threads(self) -> Flow[list[str]]:
        # not `distinct`, whose answer is one document, of 16 MB at most
        groups: list[Any] = yield partial(self.saver.checkpoint_collection.aggregate, [{"$group": {"_id": "$thread_id"}}])
        return [str(group["_id"]) for group in groups]

    def places(self, thread: str) -> Flow[list[Place]]:
        only = {"_id": 0, "checkpoint_id": 1, "checkpoint_ns": 1}
        found: list[Any] = yield partial(self.saver.checkpoint_collection.find, {"thread_id": thread}, only)
        return sorted(Place(each["checkpoint_id"], each["checkpoint_ns"]) for each in found)

    def read(self, thread: str, place: Place) -> Flow[Found | None]:
        found = yield from super().read(thread, place)
        if found is None:
            return None
        where = {"thread_id": thread, "checkpoint_ns": place.ns, "checkpoint_id": place.checkpoint}
        stored: list[Any] = yield partial(self.saver.writes_collection.find, where)
        found.writes = sorted(map(self._write, stored), key=lambda write: (write.path or "", write.task, write.index))
        return found

    def _write(self, stored: Any) -> Write:
        value = self.saver.serde.loads_typed((stored["type"], stored["value"]))
        # versions before 0.1.2 stored no path
        return Write(stored["task_id"], stored.get("task_path", ""), stored["idx"], stored["channel"], value)
