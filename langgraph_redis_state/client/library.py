"""The part of the client library that this package uses: protocols for sync and async clients, and the names of errors.

redis-py and valkey-py have classes of the same names without a common base. So errors are recognized by their class names.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from importlib import import_module
from typing import Any, Protocol, TypeGuard

from ..effects import Argument


class Node(Protocol):
    """A server of a Cluster."""

    name: str


class Cluster(Protocol):
    """What sync and async clients of a Cluster have in addition to other clients."""

    def get_nodes(self) -> Sequence[Any]: ...
    def get_primaries(self) -> Sequence[Node]: ...
    def get_node_from_key(self, key: Argument) -> Node: ...
    def get_default_node(self) -> Node: ...
    def disconnect_connection_pools(self) -> None: ...  # of sync clients
    def initialize(self) -> Awaitable[object]: ...  # of async clients


class SyncPipeline(Protocol):
    def execute_command(self, *command: Argument) -> object: ...
    def execute(self, *, raise_on_error: bool) -> list[Any]: ...


class SyncClient(Protocol):
    def evalsha(self, *arguments: bytes) -> object: ...
    def eval(self, *arguments: bytes) -> object: ...
    def evalsha_ro(self, *arguments: bytes) -> object: ...
    def eval_ro(self, *arguments: bytes) -> object: ...
    def pipeline(self, *, transaction: bool) -> AbstractContextManager[SyncPipeline]: ...


class AsyncPipeline(Protocol):
    command_stack: list[Any]

    def execute_command(self, *command: Argument) -> object: ...
    def execute(self, *, raise_on_error: bool) -> Awaitable[list[Any]]: ...


class AsyncClient(Protocol):
    def evalsha(self, *arguments: bytes) -> Awaitable[object]: ...
    def eval(self, *arguments: bytes) -> Awaitable[object]: ...
    def evalsha_ro(self, *arguments: bytes) -> Awaitable[object]: ...
    def eval_ro(self, *arguments: bytes) -> Awaitable[object]: ...
    def pipeline(self, *, transaction: bool) -> AbstractAsyncContextManager[AsyncPipeline]: ...


_importing = threading.Lock()


def redis_module(module: str = "") -> Any:
    """A module of redis-py, imported when first needed. Untyped: its annotations differ from version to version.

    Its modules import each other in circles, so two threads that begin in different places fail both.
    """
    with _importing:
        import_module("redis")
        return import_module(f"redis{module}")


def in_cluster(client: object) -> TypeGuard[Cluster]:
    """Whether this is a client of a Cluster."""
    return hasattr(client, "nodes_manager")


def is_named(error: BaseException, *names: str) -> bool:
    """Whether one of the classes of an error has one of these names."""
    return not {cls.__name__ for cls in type(error).__mro__}.isdisjoint(names)
