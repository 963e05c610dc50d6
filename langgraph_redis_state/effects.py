"""The vocabulary between what an operation does and who does the waiting. No I/O here, and no asyncio.

Rule 1: an operation is a generator. It yields an effect, is sent the reply, and returns its result.
Rule 2: an effect is one of seven: `Call` runs a script on the server, one round trip; `Calls` runs several that do not depend
on each other, together; `Read` runs plain commands, for sweeps and large threads; `Scan` names all keys, for verification only;
`Compute` runs a function, in a worker thread when it is large and somebody else waits for the event loop; `Await` waits for
another task or thread of the process; `Note` is for telemetry. A stream is an operation that also yields `Emit`, with items
for its caller.
Rule 3: a driver performs the effect or throws its error into the generator, which may add where it happened.

So each method of the saver exists once, and the sync and the async driver (`client/driver.py`) are all that differs.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import resources
from typing import Any, TypeVar

T = TypeVar("T")

Argument = bytes | str | int

Command = tuple[Argument, ...]


def _random_start() -> Iterator[int]:
    return itertools.count(int.from_bytes(os.urandom(6), "big"))


_tokens = _random_start()


def _after_fork() -> None:
    global _tokens
    _tokens = _random_start()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def new_token() -> bytes:
    """A number that one process gives to one call only."""
    return b"%d" % next(_tokens)


def packable(arguments: Iterable[Argument]) -> list[bytes]:
    """As bytes, the only kind that hiredis packs without running Python code. When a signal handler raises in that code, as the
    soft time limits of task queues do, some releases of hiredis crash the interpreter."""
    return [each if type(each) is bytes else _packable(each) for each in arguments]


_SMALL = tuple(b"%d" % n for n in range(256))


def _packable(argument: Argument) -> bytes:
    if type(argument) is int and 0 <= argument < 256:  # lengths of lists, mostly
        return _SMALL[argument]
    if isinstance(argument, bytes):
        return bytes(argument)
    if isinstance(argument, str):
        return argument.encode()
    if isinstance(argument, int) and not isinstance(argument, bool):
        return b"%d" % argument
    raise TypeError(f"an argument of a command is bytes, text or an integer, not {argument!r}")


class ReplyMismatch(Exception):
    """The client library gave the reply to another call."""


@dataclass(slots=True)  # not frozen: that takes four times as long to make, and one is made for each call
class Call:
    """One script, one round trip, atomic. `about` says in errors what was being done to what.

    The script gives `token` back, so that an answer that belongs to another call is never taken for this one's: a client
    library that mixes up its connections (redis-py did, in 2023 and since) must not mix up threads.
    """

    script: Script
    keys: Sequence[bytes]
    args: Sequence[Argument]
    about: str
    token: bytes = field(default_factory=new_token)

    @property
    def arguments(self) -> tuple[bytes, ...]:
        """What follows EVALSHA and the script."""
        return (b"%d" % len(self.keys), *self.keys, *packable(self.args), self.token)

    def unwrap(self, reply: object) -> list[Any]:
        """The reply without the token, or ReplyMismatch."""
        if not isinstance(reply, list) or not reply or reply[-1] != self.token:
            raise ReplyMismatch
        return reply[:-1]


@dataclass(frozen=True, slots=True)
class Calls:
    """Several calls, sent together to each server; others may run between two of them. The reply is a list of their replies."""

    calls: Sequence[Call]

    @property
    def about(self) -> str:
        return self.calls[0].about


@dataclass(frozen=True, slots=True)
class Read:
    """Plain commands, their first argument a key, sent together to each server; the reply is the list of their replies, as the
    server sent them."""

    commands: Sequence[Command]
    about: str


@dataclass(frozen=True, slots=True)
class Scan:
    """The names of all keys that match, from every primary of a Cluster; the reply is a list, and may name a key twice."""

    match: bytes
    about: str


@dataclass(frozen=True, slots=True)
class Compute:
    """A pure function over `size` bytes, too many to do it at once."""

    work: Callable[[], Any]
    size: int


@dataclass(frozen=True, slots=True)
class Await:
    """Waits until a future is done, for some seconds at most: what waits may be what holds it up."""

    future: Future[None]


@dataclass(frozen=True, slots=True)
class Note:
    """Counts for telemetry, taken only if somebody wants them. No reply."""

    counts: Callable[[], Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Emit:
    """Items for the caller of a stream, which goes on when they are used up. No reply."""

    items: Sequence[Any]


Effect = Call | Calls | Read | Scan | Compute | Await | Note
Operation = Generator[Effect, Any, T]
Stream = Generator[Effect | Emit, Any, None]
"""An operation that gives its caller items as it goes on."""

_ANSWER = "local answer = verb()\nanswer[#answer + 1] = token\nreturn answer\n"


class Script:
    """A Lua file of this package: the libraries that it includes, then the verb, with the call's token behind its reply.

    `writes`: its `ok` tells the caller that something is stored or gone, so a level of durability waits for it. Such a script
    writes something each time it says `ok`, also when repeated: otherwise there was nothing to wait for. `bare`: it is about no
    thread, and goes without the libraries. `also`: commands that stand in no `call`, since not every server has them.
    """

    def __init__(self, name: str, *, writes: bool = False, bare: bool = False, also: Collection[str] = ()) -> None:
        self.name = name
        self._also = frozenset(also)
        self.writes = writes
        self._bare = bare

    @cached_property
    def source(self) -> str:
        verb = _text(self.name)
        if self._bare:
            return f"local token = table.remove(ARGV)\nlocal function verb()\n{verb}end\n{_ANSWER}"
        alone = "return answered(" in verb
        library, first = ("".join(map(_text, found)) for found in (libraries(verb), _named(_FIRST, verb)))
        return linked(library, verb if alone else f"local function verb()\n{verb}end\n{_ANSWER}", first)

    @cached_property
    def commands(self) -> frozenset[str]:
        """The commands that it may run on the server."""
        return self._also | frozenset(re.findall(r"(?:call\(|in_batches(?:\(|', ))'([A-Z]+)'", self.source))

    @cached_property
    def sha(self) -> bytes:
        return hashlib.sha1(self.source.encode(), usedforsecurity=False).hexdigest().encode()

    def __repr__(self) -> str:
        return f"<Script {self.name}>"


_KEYS = "lib/keys"

_INCLUDE = re.compile(r"^-- include: (.+)$", re.MULTILINE)

_FIRST = re.compile(r"^-- first: (.+)$", re.MULTILINE)

_COMMENT = re.compile(r"(?:^|(?<=\s))--.*\n?", re.MULTILINE)

_DEFINITION = re.compile(r"^local (?:function )?([\w, ]+)(?:.*\n)(?:(?:[ }].*)?\n)*(?:end\n)?", re.MULTILINE)

_PLAIN = re.compile(r"local [\w, ]+ = [^({\n]*\n*")

_RARE = re.compile(r"^local function (\w+)\(.*-- rare", re.MULTILINE)


def linked(library: str, text: str, first: str = "") -> str:
    """Some Lua behind what it uses of a library, directly or not. `first`: Lua that uses the names of keys only, and may answer
    before the functions of the library are made.

    A server makes each function anew for each call, which takes longer than most of them. So functions that the library marks
    as rare are made when the first of them is called: they stand in one function, which is given the name of the one to call,
    together with what only they use. Constants and names of keys are made there again, since each variable that a function
    shares must be found for each call.
    """
    hot, cold = set(re.findall(r"\w+", _COMMENT.sub("\n", first + text))), set[str]()
    rarely = set(_RARE.findall(library))
    kept, rare, plain = list[str](), dict[str, str](), list[str]()
    for found in reversed(list(_DEFINITION.finditer(_COMMENT.sub("\n", library)))):
        names, words = re.findall(r"\w+", found[1]), re.findall(r"\w+", found[0])
        often, seldom = not hot.isdisjoint(names), not cold.isdisjoint(names)
        if names[0] in rarely or (seldom and not often and found[0].startswith("local function")):
            if often or seldom:
                rare = {names[0]: found[0]} | rare
                cold.update(words)
        elif seldom and _PLAIN.fullmatch(found[0]):
            plain.insert(0, found[0])
            if often:
                kept.insert(0, found[0])
        elif often or seldom:
            kept.insert(0, found[0])
            hot.update(words)
    if first:
        before = {found[0].strip() for found in _DEFINITION.finditer(_COMMENT.sub("\n", _text(_KEYS)))}
        kept.insert(sum(each.strip() in before for each in kept), _COMMENT.sub("\n", first))
    if not rare:
        return "".join(kept) + text
    calls = re.compile(rf"(?<!function )\b({'|'.join(rare)})\((\))?")
    body = "".join([*kept, "RARELY", text])
    body = calls.sub(lambda call: f"rarely('{call[1]}'" + (")" if call[2] else ", "), body)
    table = ", ".join(f"{name} = {name}" for name in rare if name in rarely)
    made = f"if not made then\n{''.join([*plain, *rare.values()])}made = {{ {table} }}\nend\nreturn made[name](...)\n"
    return "local rarely, made\n" + body.replace("RARELY", f"rarely = function(name, ...)\n{made}end\n", 1)


def libraries(text: str) -> dict[str, None]:
    """The libraries that a Lua file includes, each after those that it includes itself."""
    found: dict[str, None] = {_KEYS: None}
    for name in _named(_INCLUDE, text):
        found |= libraries(_text(name)) | {name: None}
    return found


def _named(directive: re.Pattern[str], text: str) -> list[str]:
    return [f"lib/{name}" for line in directive.findall(text) for name in line.split()]


@cache
def _text(name: str) -> str:
    return (resources.files(__package__) / "scripts" / f"{name}.lua").read_text("utf-8")


@cache
def all_commands() -> frozenset[str]:
    """Every command that a script of this package may run."""
    names = (file.name for file in (resources.files(__package__) / "scripts").iterdir() if file.name.endswith(".lua"))
    return frozenset[str]().union(*(Script(name.removesuffix(".lua")).commands for name in names))


COMPUTE_INLINE = 256 * 1024
"""Work on up to this many bytes is done at once, larger work where it holds up nobody else."""


def compute(work: Callable[[], T], size: int) -> Operation[T]:
    """`yield from compute(...)` gives what `work` returns, typed."""
    if size <= COMPUTE_INLINE:
        return work()
    result: T = yield Compute(work, size)
    return result


def emitted(stream: Stream) -> Operation[Sequence[Any] | None]:
    """Performs a stream as far as its next `Emit`: the items; None at its end."""
    reply: Any = None
    error: Exception | None = None
    while True:
        try:
            effect = stream.send(reply) if error is None else stream.throw(error)
        except StopIteration:
            return None
        if isinstance(effect, Emit):
            return effect.items
        reply = error = None
        try:
            reply = yield effect
        except Exception as caught:  # noqa: BLE001 - thrown into the stream, never dropped
            error = caught


def portion(command: str, key: bytes, cursor: int, count: int, about: str) -> Operation[tuple[int, list[tuple[bytes, Any]]]]:
    """About `count` entries of a large key, by HSCAN or ZSCAN, which may give one twice, and the cursor of the next. It is -1
    to begin with, and 0 at the end."""
    ((following, content),) = yield Read([(command, key, max(cursor, 0), "COUNT", count)], about)
    return int(following), pairs(content)


def pairs(content: Any) -> list[tuple[bytes, Any]]:
    """Names with contents or scores, in whatever form a client gives them: a mapping, pairs, or one after the other."""
    if isinstance(content, dict):
        return list(content.items())
    if content and isinstance(content[0], list | tuple):
        return [tuple(pair) for pair in content]
    return list(zip(content[::2], content[1::2], strict=True))


def counted(items: Collection[Any]) -> list[Argument]:
    """A list as scripts take it, its length before it; each item is an argument, or a tuple of them."""
    arguments: list[Argument] = [len(items)]
    for item in items:
        arguments += item if isinstance(item, tuple) else (item,)
    return arguments
