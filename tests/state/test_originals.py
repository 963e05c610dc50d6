"""Every code block of the descriptions that the two state APIs follow, with the names of arguments they use.

`RedisStatePersistence`: the pages redis-backend, persistence and versioning of RecoAgent's reference
(https://recoagent.recohut.com/docs/reference/state/). `AgentCheckpointer`: README, documentation and tests of the Rust crate
agents-persistence 0.0.30 (https://docs.rs/agents-persistence) and its chapter in the book of the SDK
(https://github.com/yafatek/rust-deep-agents-sdk, book/src/persistence/redis.md), translated. Only imports and addresses differ.
"""

from __future__ import annotations

import os
import uuid
from datetime import timedelta
from typing import Any

import pytest

from langgraph_redis_state import (
    AgentCheckpointer,
    AgentStateSnapshot,
    CheckpointerError,
    CompressionType,
    InvalidConfigError,
    RedisStatePersistence,
    ServerUnavailableError,
    TodoItem,
)


@pytest.fixture
def namespace() -> str:
    return f"t-{uuid.uuid4().hex[:12]}"


class TestRedisBackendPage:
    """https://recoagent.recohut.com/docs/reference/state/redis-backend"""

    def test_quick_start(self, url: str, namespace: str, capsys: pytest.CaptureFixture[str]) -> None:
        # Basic Redis configuration
        persistence = RedisStatePersistence(
            redis_url=url,
            compression_type=CompressionType.LZ4,
            enable_versioning=True,
            max_versions=10,
            default_ttl=3600,
            namespace=namespace,
        )

        # Save state
        persistence.save_with_metadata(
            state={"user_id": "123", "data": "important_data"},
            state_id="user_session_123",
            version=1,
            tags=["user", "session"],
        )

        # Load state
        result = persistence.load_with_metadata("user_session_123")
        if result:
            state, metadata = result
            print(f"State: {state}")  # noqa: T201
            print(f"Version: {metadata.version}")  # noqa: T201
        assert capsys.readouterr().out == "State: {'user_id': '123', 'data': 'important_data'}\nVersion: 1\n"
        persistence.close()

    def test_advanced_configuration(self, url: str, namespace: str) -> None:
        persistence = RedisStatePersistence(
            redis_url=url,
            compression_type=CompressionType.LZ4,
            enable_versioning=True,
            max_versions=20,
            default_ttl=7200,
            # Redis connection options
            redis_options={
                "socket_timeout": 5,
                "socket_connect_timeout": 5,
                "retry_on_timeout": True,
                "decode_responses": False,
                "max_connections": 20,
            },
            namespace=namespace,
        )
        for n in range(25):
            persistence.save_with_metadata(state={"n": n}, state_id="my_state")
        assert len(persistence.list_versions("my_state")) == 20
        assert persistence.list_versions("my_state")[0].ttl_seconds == pytest.approx(7200, abs=30)
        persistence.close()

    @pytest.mark.parametrize("compression_type", [CompressionType.LZ4, CompressionType.ZLIB, CompressionType.NONE])
    def test_compression_types(self, url: str, namespace: str, compression_type: CompressionType) -> None:
        persistence = RedisStatePersistence(redis_url=url, compression_type=compression_type, namespace=namespace)
        saved = persistence.save_with_metadata(state={"data": "important_data " * 200}, state_id="my_state")
        assert saved.compression_type is compression_type
        assert (saved.stored_bytes < saved.size_bytes / 2) == (compression_type is not CompressionType.NONE)
        persistence.close()

    def test_connections_that_are_kept_alive(self, url: str, namespace: str) -> None:
        persistence = RedisStatePersistence(
            redis_url=url,
            redis_options={"max_connections": 20, "socket_keepalive": True, "socket_keepalive_options": {}},
            namespace=namespace,
        )
        assert persistence.ping()
        persistence.close()

    def test_memory_is_watched_and_cleaned_up(self, url: str, namespace: str) -> None:
        """The original compares `used_memory_human` with the text "100MB", which cannot be right; bytes can be compared."""
        persistence = RedisStatePersistence(redis_url=url, max_versions=None, namespace=namespace)
        for n in range(8):
            persistence.save_with_metadata(state={"n": n}, state_id="my_state")
        stats = persistence.get_stats()
        assert stats["total_states"] == 1
        assert isinstance(stats["redis_info"]["used_memory_human"], str)
        if stats["redis_info"]["used_memory"] > 100 * 1024:
            for state in persistence.list_states():
                versions = persistence.list_versions(state.state_id)
                for version in versions[:-5]:
                    persistence.delete_version(state.state_id, version.version)
        assert [version.version for version in persistence.list_versions("my_state")] == [4, 5, 6, 7, 8]
        persistence.close()


class TestPersistencePage:
    """https://recoagent.recohut.com/docs/reference/state/persistence"""

    def test_quick_start(self, url: str, namespace: str, capsys: pytest.CaptureFixture[str]) -> None:
        # Configure Redis persistence
        persistence = RedisStatePersistence(
            redis_url=url,
            compression_type=CompressionType.LZ4,
            enable_versioning=True,
            max_versions=10,
            default_ttl=3600,
            namespace=namespace,
        )

        # Save state with metadata
        persistence.save_with_metadata(
            state={"user_id": "123", "data": "important_data"},
            state_id="user_session_123",
            version=1,
            tags=["user", "session"],
            ttl_seconds=7200,
        )

        # Load state with metadata
        result = persistence.load_with_metadata("user_session_123")
        if result:
            state, metadata = result
            print(f"State: {state}")  # noqa: T201
            print(f"Version: {metadata.version}")  # noqa: T201
            print(f"Created: {metadata.created_at}")  # noqa: T201
            print(f"Size: {metadata.size_bytes} bytes")  # noqa: T201
            print(f"Compression: {metadata.compression_type}")  # noqa: T201
        printed = capsys.readouterr().out.splitlines()
        assert [line.split(":")[0] for line in printed] == ["State", "Version", "Created", "Size", "Compression"]
        assert metadata.ttl_seconds == pytest.approx(7200, abs=30)
        persistence.close()

    def test_additional_redis_options(self, url: str, namespace: str) -> None:
        persistence = RedisStatePersistence(
            redis_url=url,
            compression_type=CompressionType.LZ4,
            enable_versioning=True,
            max_versions=20,
            default_ttl=7200,
            # Additional Redis options
            redis_options={
                "socket_timeout": 5,
                "socket_connect_timeout": 5,
                "retry_on_timeout": True,
                "decode_responses": False,
            },
            namespace=namespace,
        )
        persistence.save_with_metadata(state={"data": b"\xff"}, state_id="my_state")
        result = persistence.load_with_metadata("my_state")
        assert result is not None
        assert result[0] == {"data": b"\xff"}
        persistence.close()


class TestVersioningPage:
    """https://recoagent.recohut.com/docs/reference/state/versioning"""

    def test_usage(self, url: str, namespace: str) -> None:
        persistence = RedisStatePersistence(redis_url=url, enable_versioning=True, max_versions=10, namespace=namespace)

        # Save version 1
        persistence.save_with_metadata(state={"data": "v1"}, state_id="my_state", version=1)

        # Save version 2
        persistence.save_with_metadata(state={"data": "v2"}, state_id="my_state", version=2)

        # List versions
        versions = persistence.list_versions("my_state")

        # Load specific version
        result = persistence.load_with_metadata("my_state", version=1)

        assert [version.version for version in versions] == [1, 2]
        assert result is not None
        assert result[0] == {"data": "v1"}
        persistence.close()


def sample_state() -> AgentStateSnapshot:
    state = AgentStateSnapshot()
    state.todos.append(TodoItem.pending("Test todo"))
    state.files["test.txt"] = "content"
    state.scratchpad["key"] = "value"
    return state


class TestAgentsPersistenceCrate:
    """README.md, src/redis_checkpointer.rs and src/lib.rs of agents-persistence 0.0.30. What `ConfigurableAgentBuilder` does
    with a checkpointer is the agent's; here its two calls are made, `save_state` and `load_state` of a thread."""

    @pytest.mark.parametrize("redis_url", ["redis://127.0.0.1:6379", "redis://localhost:6379"])
    def test_basic_usage(self, redis_url: str) -> None:
        # RedisCheckpointer::new("redis://127.0.0.1:6379").await?
        with AgentCheckpointer(redis_url) as checkpointer:
            assert "lgrs:agents:agents" in repr(checkpointer)

    async def test_namespace_and_ttl(self, url: str, namespace: str) -> None:
        checkpointer = (
            AgentCheckpointer.builder()
            .url(url)
            .namespace(namespace)
            .ttl(timedelta(seconds=86400))  # 24 hours
            .build()
        )
        # agent.save_state("user-123").await?; agent.load_state("user-123").await?;
        await checkpointer.asave_state("user-123", sample_state())
        assert await checkpointer.aload_state("user-123") == sample_state()
        await checkpointer.aclose()

    def test_a_builder_without_url(self) -> None:
        # .ok_or_else(|| anyhow::anyhow!("Redis URL is required"))?
        with pytest.raises(InvalidConfigError, match="no url"):
            AgentCheckpointer.builder().namespace("myapp").build()

    def test_error_handling(self, url: str, namespace: str, capsys: pytest.CaptureFixture[str]) -> None:
        def save(checkpointer: AgentCheckpointer, state: Any) -> None:
            # match checkpointer.save_state(&thread_id, &state).await { Ok(()) => ..., Err(e) => ... }
            try:
                checkpointer.save_state("thread", state)
                print("State saved successfully")  # noqa: T201
            except CheckpointerError as error:
                print(f"Failed to save state: {type(error).__name__}")  # noqa: T201

        with AgentCheckpointer(url, namespace=namespace) as checkpointer:
            save(checkpointer, sample_state())
            save(checkpointer, AgentStateSnapshot(scratchpad={"no JSON": object()}))
        with AgentCheckpointer("unix:///nowhere.sock", redis_options={"retry": None}) as checkpointer:
            save(checkpointer, sample_state())
        said = capsys.readouterr().out.splitlines()
        assert said[0] == "State saved successfully"
        assert said[1:] == [
            "Failed to save state: SerializationError",
            f"Failed to save state: {ServerUnavailableError.__name__}",
        ]

    async def test_redis_save_and_load(self, url: str, namespace: str) -> None:
        checkpointer = AgentCheckpointer(url, namespace=namespace)
        thread_id = "test-thread"
        state = sample_state()

        # Save state
        await checkpointer.asave_state(thread_id, state)

        # Load state
        loaded = await checkpointer.aload_state(thread_id)
        assert loaded is not None
        assert len(loaded.todos) == 1
        assert loaded.files["test.txt"] == "content"

        # Cleanup
        await checkpointer.adelete_thread(thread_id)
        assert await checkpointer.aload_state(thread_id) is None
        await checkpointer.aclose()

    async def test_redis_list_threads(self, url: str, namespace: str) -> None:
        checkpointer = AgentCheckpointer.builder().url(url).namespace(namespace).build()
        state = sample_state()

        # Save multiple threads
        await checkpointer.asave_state("thread1", state)
        await checkpointer.asave_state("thread2", state)

        # List threads
        threads = await checkpointer.alist_threads()
        assert "thread1" in threads
        assert "thread2" in threads

        # Cleanup
        await checkpointer.adelete_thread("thread1")
        await checkpointer.adelete_thread("thread2")
        assert await checkpointer.alist_threads() == []
        await checkpointer.aclose()


class TestBookOfTheSDK:
    """book/src/persistence/redis.md. Its `with_ttl` and `with_prefix` are not in the crate: they are the builder's `ttl` and
    `namespace`."""

    @pytest.mark.parametrize(
        "redis_url",
        [
            "redis://localhost:6379",
            "redis://user:password@localhost:6379",
            "redis://localhost:6379/1",  # DB 1
            "rediss://localhost:6379",
            "redis+cluster://node1:6379,node2:6379,node3:6379",  # there "redis://node1:6379,node2:6379,node3:6379"
        ],
    )
    def test_connection_options(self, redis_url: str) -> None:
        with AgentCheckpointer(redis_url) as checkpointer:
            assert "password" not in repr(checkpointer)

    def test_environment_variable(self, url: str, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("REDIS_URL", url)
        with AgentCheckpointer(os.environ["REDIS_URL"], namespace=namespace) as checkpointer:
            assert checkpointer.ping()

    @pytest.mark.parametrize("ttl", [86400, timedelta(days=30)])
    def test_ttl_and_prefixes(self, url: str, namespace: str, ttl: Any) -> None:
        with (
            AgentCheckpointer(url, namespace=f"prod:{namespace}", ttl=ttl) as production,
            AgentCheckpointer(url, namespace=f"staging:{namespace}") as staging,
        ):
            production.save_state("user-123", sample_state())
            assert production.load_state("user-123") == sample_state()
            assert staging.load_state("user-123") is None
            production.delete_thread("user-123")
            assert production.load_state("user-123") is None
