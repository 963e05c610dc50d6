"""The state of an agent as plain JSON values: classes, checks, and conversion from and to JSON. No I/O.

A value that JSON cannot express is refused with the name of its field, because it would be loaded as a different value.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from ..errors import SerializationError


class TodoStatus(str, Enum):
    """The progress of a todo."""

    PENDING = "pending"
    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"


@dataclass(slots=True)
class TodoItem:
    """A task of an agent. `extra` holds all other fields, unchanged."""

    content: str
    status: TodoStatus = TodoStatus.PENDING
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def pending(cls, content: str) -> TodoItem:
        return cls(content, TodoStatus.PENDING)

    @classmethod
    def in_progress(cls, content: str) -> TodoItem:
        return cls(content, TodoStatus.IN_PROGRESS)

    @classmethod
    def completed(cls, content: str) -> TodoItem:
        return cls(content, TodoStatus.COMPLETED)

    @classmethod
    def of(cls, value: Any, where: str = "a todo") -> TodoItem:
        """From a mapping with `content`, a text, and `status`; `where` names it in the error."""
        if type(value) is cls:  # fields of a subclass would be lost
            return value
        if not isinstance(value, Mapping) or not isinstance(value.get("content"), str):
            raise SerializationError(f"{where}: an object with a content, which is text, is needed, not {reprlib.repr(value)}")
        try:
            status = TodoStatus(value.get("status", "pending"))
        except ValueError as error:
            raise SerializationError(f"{where}: {error}; allowed are {', '.join(each.value for each in TodoStatus)}") from None
        return cls(value["content"], status, {name: each for name, each in value.items() if name not in ("content", "status")})

    def to_dict(self, where: str = "a todo") -> dict[str, Any]:
        """A dict of its own fields and those of `extra`; `where` names the todo in errors."""
        return with_extra({"content": self.content, "status": self.status}, self.extra, where)


_KINDS: dict[str, type] = {"todos": list, "files": dict, "scratchpad": dict, "messages": list}


@dataclass(slots=True)
class AgentStateSnapshot:
    """The state of an agent. `extra` holds all other fields, unchanged."""

    todos: list[TodoItem] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    scratchpad: dict[str, Any] = field(default_factory=dict)
    messages: list[Any] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """A copy in plain JSON values; `messages` only if there are any, and the fields of `extra` at the same level.

        Raises:
            SerializationError: JSON cannot hold a value, or `from_dict` would not take it back; names the field.
        """
        todos: Any = self.todos
        if isinstance(todos, list | tuple):
            named = [(todo, f"todos[{at}]") for at, todo in enumerate(todos)]
            todos = [TodoItem.of(todo, where).to_dict(where) for todo, where in named]
        own = {"todos": todos, "files": self.files, "scratchpad": self.scratchpad, "messages": self.messages}
        try:
            values = {name: plain_json(value, name) for name, value in with_extra(own, self.extra, "the state").items()}
        except RecursionError:
            raise SerializationError("a field is nested too deeply, or contains itself") from None
        AgentStateSnapshot.from_dict(values)
        if not values["messages"]:
            del values["messages"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> AgentStateSnapshot:
        """From plain JSON values. Unknown fields are kept in `extra`."""
        if not isinstance(values, Mapping):
            raise SerializationError(f"the state of an agent is an object with fields, not {type(values).__name__}")
        for name, kind in _KINDS.items():
            if not isinstance(values.get(name, kind()), kind):
                raise SerializationError(
                    f"{name}: a JSON {'array' if kind is list else 'object'} is needed, not {reprlib.repr(values[name])}"
                )
        for name, content in values.get("files", {}).items():
            if not isinstance(content, str):
                raise SerializationError(f"files[{name!r}]: text is needed, not {reprlib.repr(content)}")
        return cls(
            todos=[TodoItem.of(todo, f"todos[{at}]") for at, todo in enumerate(values.get("todos", []))],
            files=dict(values.get("files", {})),
            scratchpad=dict(values.get("scratchpad", {})),
            messages=list(values.get("messages", [])),
            extra={name: value for name, value in values.items() if name not in _KINDS},
        )

    def to_json(self, *, indent: int | None = None) -> str:
        """JSON text. Raises SerializationError like `to_dict`."""
        return json.dumps(self.to_dict(), ensure_ascii=False, allow_nan=False, indent=indent)

    @classmethod
    def from_json(cls, text: str | bytes) -> AgentStateSnapshot:
        """From JSON text, of this class or of another language."""
        try:
            return cls.from_dict(json.loads(text))
        except (ValueError, RecursionError) as error:
            raise SerializationError(f"the state of an agent is JSON, this is not ({error})") from None


def with_extra(own: dict[str, Any], extra: Any, where: str) -> dict[str, Any]:
    """The fields of an object together with its extra fields; a name in both is an error."""
    if not isinstance(extra, Mapping) or not all(isinstance(name, str) for name in extra):
        raise SerializationError(f"{where}: extra holds fields by their names, which are text, not {reprlib.repr(extra)}")
    if twice := own.keys() & extra.keys():
        raise SerializationError(f"{where}: extra has a field {min(twice)!r}, which is not an extra one")
    return own | dict(extra)


def plain_json(value: Any, where: str) -> Any:
    """A copy in JSON's own types. Raises SerializationError, which names the value that JSON cannot express."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        try:
            str.encode(value)
        except UnicodeEncodeError:
            raise SerializationError(f"{where}: a lone surrogate is no text, JSON cannot hold it") from None
        return value.value if isinstance(value, Enum) else str.__str__(value)
    if isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise SerializationError(f"{where}: {value.bit_length()} bits, where JSON readers take 64 bits; save it as text")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise SerializationError(f"{where}: JSON has no {value!r}; save None or text")
        return float(value)
    if isinstance(value, list | tuple):
        return [plain_json(each, f"{where}[{at}]") for at, each in enumerate(value)]
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise SerializationError(
                    f"{where}: the keys of a JSON object are text, {reprlib.repr(key)} is {type(key).__name__}"
                )
        return {plain_json(key, where): plain_json(each, f"{where}[{key!r}]") for key, each in value.items()}
    raise SerializationError(f"{where}: JSON cannot hold a {type(value).__name__}; save its text or its fields")
