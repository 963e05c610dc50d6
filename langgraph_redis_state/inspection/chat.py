"""Messages as a conversation: who said what, and beside each tool call what the tool answered. Pure functions.

Messages are found by how they are laid out, since no class is imported: an `Instance` of `langchain_core.messages` (or of a
class of that shape elsewhere) with `content`, or a mapping with `role` and `content`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from langgraph.checkpoint.serde.types import _DeltaSnapshot

from .structural import Instance
from .values import masked, plain, readable

ROLES = {"human": "user", "user": "user", "ai": "assistant", "assistant": "assistant", "tool": "tool", "system": "system"}


@dataclass(slots=True)
class ToolCall:
    """A call that a model asked for. `result` is None as long as no message answers its id."""

    name: str
    id: str
    arguments: str
    result: Message | None = None


@dataclass(slots=True)
class Message:
    """One message. `role` is user, assistant, tool, system, or what stands there."""

    role: str
    text: str
    id: str = ""
    name: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    answers: str = ""
    """Of a tool's message: the id of the call."""
    status: str = ""
    """Of a tool's message: `error` if the tool failed."""
    usage: str = ""


def is_message(value: Any) -> bool:
    fields = _mapping_of(value)
    if isinstance(value, Instance):
        return "content" in fields and ("messages" in value.type or value.name.endswith(("Message", "MessageChunk")))
    return "content" in fields and isinstance(fields.get("role"), str)


def chat_channels(values: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The channels that hold messages, with them."""
    found: dict[str, list[Any]] = {}
    for name, value in values.items():
        inner = value.value if isinstance(value, _DeltaSnapshot) else value
        items = inner if isinstance(inner, list | tuple) else [inner]
        if any(map(is_message, items)):
            found[name] = [each for each in items if is_message(each)]
    return found


def conversation(messages: Sequence[Any], *, mask: bool = False) -> list[Message]:
    """The messages in their order. An answer of a tool stands in its call; one that answers no call stands by itself."""
    found = [_message(each, mask) for each in messages]
    calls = {call.id: call for each in found for call in each.calls if call.id}
    result = []
    for each in found:
        call = calls.get(each.answers) if each.role == "tool" else None
        if call is not None and call.result is None:
            call.result = each
        else:
            result.append(each)
    return result


def all_messages(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for channel, messages in chat_channels(values).items():
        for each in messages:
            yield channel, each


def _mapping_of(value: Any) -> Mapping[str, Any]:
    inner = value.fields if isinstance(value, Instance) else value
    return inner if isinstance(inner, Mapping) else {}


def _message(value: Any, mask: bool) -> Message:
    fields = _mapping_of(value)
    kind = str(fields.get("role") or fields.get("type") or (value.name if isinstance(value, Instance) else ""))
    kind = kind.removesuffix("MessageChunk").lower() if kind.endswith("MessageChunk") else kind
    text = _text(fields.get("content"), mask)
    found = Message(ROLES.get(kind, kind), text, str(fields.get("id") or ""))
    if name := str(fields.get("name") or ""):
        found.name = masked(name) if mask else name
    found.answers, found.status = str(fields.get("tool_call_id") or ""), str(fields.get("status") or "")
    calls = fields.get("tool_calls")
    for each in calls if isinstance(calls, list) else ():
        given = _mapping_of(each)
        inner = _mapping_of(given.get("function"))  # as providers write it in a mapping
        arguments = given.get("args", inner.get("arguments"))
        shown = arguments if isinstance(arguments, str) and not mask else readable(plain(arguments, mask=mask), None)
        found.calls.append(ToolCall(str(given.get("name") or inner.get("name") or "?"), str(given.get("id") or ""), shown))
    usage = _mapping_of(fields.get("usage_metadata"))
    if usage.get("total_tokens"):
        found.usage = f"{usage['total_tokens']} tokens"
    return found


def _text(content: Any, mask: bool) -> str:
    """The text of a message. Of other parts only their kind is told; nothing they refer to is loaded."""
    if isinstance(content, str):
        return masked(content) if mask else content
    if not isinstance(content, list | tuple):
        return readable(plain(content, mask=mask), None)
    parts = []
    for each in content:
        fields = _mapping_of(each)
        if isinstance(each, str):
            parts.append(masked(each) if mask else each)
        elif isinstance(fields.get("text"), str):
            parts.append(masked(fields["text"]) if mask else fields["text"])
        elif fields.get("type") not in ("tool_use", "tool_call", "function_call"):  # those stand among the calls
            parts.append(f"[{fields.get('type') or type(each).__name__}]")
    return "\n".join(parts)
