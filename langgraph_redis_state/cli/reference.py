"""docs/cli.md, made from the commands: `python -m langgraph_redis_state.cli.reference > docs/cli.md`."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from .app import SECTIONS, lgrs
from .command import COMMANDS, FIELDS, OPTIONS
from .session import EXIT_CODES

HEAD = """\
# `lgrs`: look inside of threads, and steer them

For those who run graphs with `RedisSaver` and want to know at 3 a.m. why an agent hangs, what it knew, and what will happen if it
is invoked now. After this page you know every command, its options, what it prints, and its exit codes. This page is made
from the commands (`python -m langgraph_redis_state.cli.reference`).

```shell
pip install 'langgraph-redis-state[cli]'
export LGRS_URL=redis://localhost:6379/0  # with its password, if it has one

lgrs threads --status asks --status died  # who is stuck
lgrs why claim-7                          # on what, since when, and what an invoke would do
lgrs messages claim-7                     # what it knew
lgrs history claim-7                      # how it came there
lgrs diff claim-7@-1                      # what a step changed
lgrs rollback claim-7@-2                  # back, without losing anything
```

## What it promises

- **Looking changes nothing.** No TTL moves, no index is rebuilt, nothing is tidied. It needs no right to write, and works on a
  replica ([the rights](security.md#rights)).
- **Values are shown without their classes.** Nothing that stored bytes name is imported, called or unpickled. Control characters
  of values are written as `\\x1b`, so no value moves a cursor.
- **Nothing goes without a yes.** What removes something says first what would go. It asks at a terminal; without one it
  changes nothing unless `--yes` is given. `--dry-run` never changes anything.
- **Steering leaves expiries as they are**, and writes values back byte for byte.

## Where it looks

| variable | option | meaning |
| --- | --- | --- |
| `LGRS_URL` | `-u`, `--url` | The server: [URLs](reference.md#urls). Default: `redis://localhost:6379/0`. A password may stand in the variable only, since other users can see arguments. |
| `LGRS_PREFIX` | `--prefix` | The saver's `prefix`. Default: `lgrs`. |
| `LGRS_INTEGRITY_KEY_FILE` | | A file with the saver's `integrity_key`: the key itself, or one `hex:...` or `base64:...` a line, the newest first. |
| `LGRS_ACCEPT_UNKEYED` | | `true` or `false`: `accept_unkeyed`. |
| `LGRS_ENCRYPTION_KEY_FILE` | | A file with the saver's `encryption_key`, in the same form. |
| `LGRS_DECRYPT_ONLY` | | `true` or `false`: `decrypt_only`. |
| `LGRS_FRESHNESS` | | `true` or `false`: `freshness`. |
| `LGRS_NAME_KEY_FILE` | | A file with its `name_key`. |
| `LGRS_SERDE_KEY_FILE` | | A file with the AES key of `EncryptedSerializer`, in the same form. |
| `LGRS_PASSPHRASE_FILE` | | A file with the passphrase of archives. If it is set, `export` and `backup` encrypt. |
| `LGRS_FROM` | `migrate --from` | The source of a migration. A password may stand in the variable only. |
| | `--embedded PATH` | The data of an embedded server, instead of a URL. |
| `NO_COLOR` | | If set: no colours. There are none without a terminal. |
| `COLUMNS` | | How wide the output is, where it is no terminal. |

Options of all commands may stand before or behind the command.

## Naming a checkpoint

`THREAD` is the id of a thread. For commands that only look, the beginning of an id is enough if no other id begins with it.

| | |
| --- | --- |
| `claim-7`, `claim-7@latest` | the newest checkpoint |
| `claim-7@-1` | its parent; `@-2` the parent of that |
| `claim-7@paid` | the checkpoint with the tag `paid` |
| `claim-7@v12` | the checkpoint with the number 12, as `history` shows it |
| `claim-7@1f0cc2` | the checkpoint whose id begins so |

If a thread has the whole text as its id, such as `ada@example.org`, that thread is meant.

## Exit codes

| code | meaning |
| --- | --- |
"""

VALUES = """
## Statuses

| status | meaning |
| --- | --- |
| `asks` | An interrupt waits for its answer. |
| `failed` | A task stored an error. |
| `died` | A step is not complete, and nothing was stored for a minute (`--alive`). A run that stopped at a breakpoint or at its recursion limit looks the same. |
| `running` | The same, and something was stored within the minute. |
| `done` | Nothing is left to run. |
| `unreadable` | The newest checkpoint is damaged, lost, or signed with another key. |

`why` also tells whether a write was refused, as far as that can be told: a refusal stores nothing. With `--max-thread-bytes` a
thread that died at its limit is `refused: size`. If an answer reached a checkpoint that had a child already, the run that
brought it lost against another: `refused: conflict`.

## Values

With `--json` each line is one object, in ASCII. Its fields are listed with each command. A later version may add fields, and
keeps these. A value that JSON cannot express is a mapping with a name that begins with `$`:

| | |
| --- | --- |
| `{"$class": "module.Name", "fields": ...}` | an object, with what its class would be called with |
| `{"$class": ..., "problem": ...}` | one whose bytes cannot be decoded |
| `{"$bytes": "base64", "size": 12}` | bytes; `null` above 48 bytes unless `show --bytes` is used |
| `{"$pickle": 120}` | a value that is not decoded, and its size |
| `{"$float": "nan"}` | a number that JSON does not have |
| `{"$map": [[key, value], ...]}` | a mapping whose keys are not all text |

With `--mask`, kinds and sizes stand in place of values: `•str 12`. Errors are one object on stderr: `error`, `message`,
`near` (similar names), `exit`.
"""


def page() -> str:
    """The text of docs/cli.md."""
    return "\n".join(_lines()).rstrip() + "\n"


def _lines() -> Iterator[str]:
    yield HEAD.rstrip("\n")
    for code, meaning in EXIT_CODES.items():
        yield f"| {code} | {meaning} |"
    yield VALUES.rstrip("\n")
    yield ""
    shared = ", ".join(f"`{flags[-1]}`" for _, flags, _ in OPTIONS)
    yield f"## Commands\n\nEach also takes {shared} and `--help`."
    for title, names in SECTIONS.items():
        yield f"\n### {title}"
        for name in names:
            yield from _command(name, COMMANDS[name])


def _command(name: str, command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=f"lgrs {name}", parent=None)
    usage = " ".join(["lgrs", name, *command.collect_usage_pieces(context)])
    yield f"\n#### `{usage.replace('[OPTIONS] ', '').replace(' [OPTIONS]', '')}`\n"
    yield inspect.cleandoc(command.help or "").replace("\n\n", "\n\n")
    shown = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
    if shown:
        yield "\n| option | |\n| --- | --- |"
        for option in shown:
            flags, about = option.get_help_record(context) or ("", "")
            yield f"| `{_cell(flags)}` | {_cell(about)} |"
    if FIELDS[name]:
        yield "\n| field of `--json` | |\n| --- | --- |"
        for field, meaning in FIELDS[name].items():
            yield f"| `{field}` | {_cell(meaning)} |"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    lgrs.name = "lgrs"
    click.echo(page(), nl=False)
