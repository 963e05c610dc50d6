"""TODO"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from langgraph.checkpoint.serde.base import SerializerProtocol

from ..errors import SerializationError
from ..storage import records


def stored_rest(checkpoint: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """A checkpoint without its values as it is serialized, and the flags of its record."""
    rest = {name: value for name, value in checkpoint.items() if name != "channel_values"}
    rest["id"] = None  # the key says it; None holds its place among the keys
    canonical = _canonical(rest)
    return (rest, 0) if canonical is None else (canonical, records.CANONICAL)


def _canonical(rest: Mapping[str, Any]) -> dict[str, Any] | None:
    """`rest` with all channel versions as integers, if all of them are 32 digits; None if any is not."""
    versions, seen = rest.get("channel_versions"), rest.get("versions_seen")
    if not isinstance(versions, dict) or not isinstance(seen, dict):
        return None
    if not all(map(_is_canonical, versions.values())):
        return None
    if not all(isinstance(each, dict) and all(map(_is_canonical, each.values())) for each in seen.values()):
        return None
    return {
        **rest,
        "channel_versions": {name: int(version) for name, version in versions.items()},
        "versions_seen": {node: {name: int(version) for name, version in each.items()} for node, each in seen.items()},
    }


def _is_canonical(version: Any) -> bool:
    # below 10**18, so that the serializer takes it as an integer
    return (
        isinstance(version, str)
        and len(version) == 32
        and version.startswith("0" * 14)
        and version.isascii()
        and version.isdigit()
    )


def dumped(serde: SerializerProtocol, value: Any, what: str) -> tuple[str, bytes]:
    try:
        type_, blob = serde.dumps_typed(value)
    except Exception as error:
        raise refusal(error, what) from error
    return type_, bytes(blob)


def refusal(error: Exception, what: str) -> SerializationError:
    return SerializationError(
        f"{what}: the serializer refuses the value ({type(error).__name__}: {error}); nothing was written. "
        "Keep it out of the state, or pass a serde that takes it"
    )
