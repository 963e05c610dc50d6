"""LangGraph's InMemorySaver with the verbs it lacks, and with values kept per record."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

from langgraph.checkpoint.base import BaseCheckpointSaver, CheckpointTuple
from langgraph.checkpoint.memory import InMemorySaver

from langgraph_redis_state.errors import ThreadExistsError, ThreadNotFoundError

THREADS = ["t", "t:1", "u"]
SPACES = ["", "child:0001", "child:0002", "plain"]
RUNS = ["run 1", "run 2", "run 3"]
FILTERS = [{}, {"user": "u"}, {"k": None}, {"k": 1}, {"k": {"d": [1]}}, {"run_id": "run 1"}, {"step": 3}]
DELTA = "log"
TOUCHED = [
    *({"a"}, {DELTA}, {"a", DELTA}, {"big"}, {"big", DELTA}, {"a", "b", "gone"}, {"gone"}, {"b"}, set()),
    {"a", "b", "big", "gone", DELTA},
]
EXTRAS = [{}, {}, {"user": "u"}, {"k": None}, {"k": 1}, {"k": True}, {"k": {"d": [1]}, "user": 1}]


class Memory(InMemorySaver):
    """InMemorySaver and the verbs it lacks."""

    def delete_for_runs(self, run_ids: Any) -> None:
        for thread, ns, checkpoint_id, told in list(self.each()):
            if told.get("run_id") in run_ids:
                self.remove(thread, ns, checkpoint_id)

    def copy_thread(self, source_thread_id: str, target_thread_id: str) -> None:
        if not self.ids_in(source_thread_id):
            raise ThreadNotFoundError(source_thread_id)
        if self.ids_in(target_thread_id):
            raise ThreadExistsError(target_thread_id)
        for ns, records in self.storage[source_thread_id].items():
            self.storage[target_thread_id][ns] = dict(records)
        for kept in (self.writes, self.blobs):
            for key in [key for key in kept if key[0] == source_thread_id]:
                kept[(target_thread_id, *key[1:])] = deepcopy(kept[key])
        for key in [key for key in self.removed if key[0] == source_thread_id]:
            self.removed[(target_thread_id, *key[1:])] = deepcopy(self.removed[key])

    def prune(self, thread_ids: Any, *, strategy: str = "keep_latest") -> None:
        for thread in thread_ids:
            if strategy == "delete":
                self.delete_thread(thread)
                continue
            kept = {(ns, max(records)) for ns, records in self.storage[thread].items() if records}
            for _, ns, checkpoint_id, _ in list(self.each(thread)):
                if (ns, checkpoint_id) not in kept:
                    self.remove(thread, ns, checkpoint_id)

    def each(self, thread: str | None = None) -> Iterator[tuple[str, str, str, Any]]:
        for name in [*self.storage] if thread is None else [thread]:
            for ns, records in self.storage[name].items():
                for checkpoint_id, (_, told, _) in records.items():
                    yield name, ns, checkpoint_id, self.serde.loads_typed(told)

    def ids_in(self, thread: str) -> set[str]:
        return {checkpoint_id for _, _, checkpoint_id, _ in self.each(thread)}

    def remove(self, thread: str, ns: str, checkpoint_id: str) -> None:
        place = (thread, ns, checkpoint_id)
        self.removed[place] = self.storage[thread][ns].pop(checkpoint_id), self.writes.pop(place, None)

    def delete_thread(self, thread_id: str) -> None:
        super().delete_thread(thread_id)
        for place in [place for place in self.removed if place[0] == thread_id]:
            del self.removed[place]

    @property
    def removed(self) -> dict[tuple[str, str, str], tuple[Any, Any]]:
        """What DeltaChannels may be rebuilt from although it was removed."""
        return self.__dict__.setdefault("_removed", {})

    @contextmanager
    def with_removed(self) -> Iterator[None]:
        back = {place: found for place, found in self.removed.items() if place[2] not in self.storage[place[0]][place[1]]}
        for place, (record, writes) in back.items():
            self.storage[place[0]][place[1]][place[2]] = record
            if writes is not None:
                self.writes[place] = writes
        try:
            yield
        finally:
            for thread, ns, checkpoint_id in back:
                del self.storage[thread][ns][checkpoint_id]
                self.writes.pop((thread, ns, checkpoint_id), None)

    def list(self, config: Any, **options: Any) -> Iterator[CheckpointTuple]:
        """Newest first across namespaces, where InMemorySaver goes namespace by namespace."""
        limit = options.pop("limit", None)
        found = sorted(super().list(config, **options), key=lambda t: t.checkpoint["id"], reverse=True)
        yield from found if limit is None else found[:limit]


class Reference(Memory):
    """Keeps a channel's value per record: inside, a version is `(version, id of the record the value came with)`."""

    def put(self, config: Any, checkpoint: Any, metadata: Any, new_versions: Any) -> Any:
        told = config["configurable"]
        parent = self.storage[told["thread_id"]][told["checkpoint_ns"]].get(told.get("checkpoint_id"))
        inherited = self.serde.loads_typed(parent[0])["channel_versions"] if parent else {}
        versions, new = {}, {}
        for channel, version in checkpoint["channel_versions"].items():
            if channel not in new_versions and inherited.get(channel, [None])[0] == version:
                versions[channel] = tuple(inherited[channel])
            else:
                versions[channel] = new[channel] = (version, checkpoint["id"])
        return super().put(config, {**checkpoint, "channel_versions": versions}, metadata, new)

    def _load_blobs(self, thread_id: str, checkpoint_ns: str, versions: Any) -> dict[str, Any]:
        return super()._load_blobs(thread_id, checkpoint_ns, {name: tuple(v) for name, v in versions.items()})

    def get_tuple(self, config: Any) -> CheckpointTuple | None:
        found = super().get_tuple(config)
        return found and self.outside(found)

    def list(self, config: Any, **options: Any) -> Iterator[CheckpointTuple]:
        yield from map(self.outside, super().list(config, **options))

    def outside(self, found: CheckpointTuple) -> CheckpointTuple:
        versions = {name: version for name, (version, _) in found.checkpoint["channel_versions"].items()}
        return found._replace(checkpoint={**found.checkpoint, "channel_versions": versions})

    def get_delta_channel_history(self, *, config: Any, channels: Any) -> Any:
        with self.with_removed():
            return BaseCheckpointSaver.get_delta_channel_history(self, config=config, channels=channels)
