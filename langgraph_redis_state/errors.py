"""What can go wrong, one tree.

A message says what happened, where (thread, namespace, checkpoint, channel), and what to do. "Not found" is never an
error here and an error is never "not found": a method returns ``None`` only when the server answered that there is
nothing.

    CheckpointerError
    ├── the caller's side
    │   ├── InvalidConfigError (ValueError)     the config names no thread, or an id that cannot be stored; a client is missing
    │   ├── SerializationError (TypeError)      the serializer refuses a value (nothing was written), or cannot read one
    │   ├── SaverClosedError                    the saver was closed, or belongs to another event loop
    │   ├── ThreadNotFoundError (LookupError)   the thread to be copied, tagged, counted or given a TTL does not exist
    │   ├── CheckpointNotFoundError (LookupError)   no checkpoint or tag of that name
    │   ├── ThreadExistsError                   the target of a copy exists
    │   ├── CheckpointConflictError             another writer was first, and `conflict="raise"` is set
    │   ├── ThreadTooLargeError                 the thread would exceed `max_thread_bytes`
    │   ├── ThreadDeletedError                  a run that began before the thread was deleted wants to write
    │   ├── ThreadBusyError                     a thread changed faster than it could be copied or pruned
    │   └── WitnessError                        the `witness` of a saver raised; what it was to be told is stored
    ├── the stored bytes
    │   ├── CheckpointCorruptError              a checksum, a size or a format does not hold
    │   │   ├── IntegrityKeyError               the record is unkeyed, or signed with a key this saver does not have
    │   │   ├── EncryptionKeyError              it is encrypted with a key this saver does not have
    │   │   └── ArchiveDamagedError             bytes of an archive are not those that were written
    │   ├── CheckpointLostError                 a part that the index or a record names is gone
    │   ├── LayoutError                         written by a version whose layout this one does not know
    │   └── FormatError (both Corrupt and Layout)   a format byte this version does not know: damage, or a newer version
    ├── the key provider
    │   └── KeyProviderError                    it gave no key for a thread
    ├── the server
    │   ├── ServerUnavailableError (ConnectionError)   unreachable, timed out, loading, or the cluster is down
    │   ├── ServerRefusedError                  it answered and said no: password, rights, read-only, memory
    │   └── DurabilityError                     the write is on the primary, and not on as many copies as `durability` asks for
    └── EmbeddedServerError                     no server program found, or it did not start
"""

from __future__ import annotations


class CheckpointerError(Exception):
    """Whatever this package raises on its own account."""


class InvalidConfigError(CheckpointerError, ValueError):
    """The config names no thread, an id holds a character that cannot be stored, or the client for this call was not given."""


class SerializationError(CheckpointerError, TypeError):
    """The serializer refused a value on its way in, or does not know a type tag on its way out."""


class SaverClosedError(CheckpointerError, RuntimeError):
    """The saver is closed, or its injected async client belongs to another event loop."""


class ThreadNotFoundError(CheckpointerError, LookupError):
    """There is no such thread."""


class CheckpointNotFoundError(CheckpointerError, LookupError):
    """The thread has no checkpoint of that id, tag or distance."""


class ThreadExistsError(CheckpointerError):
    """There is such a thread already, and it would have been overwritten."""


class CheckpointConflictError(CheckpointerError):
    """Another writer put a checkpoint after the one this builds on."""


class ThreadTooLargeError(CheckpointerError):
    """The thread would take more bytes than it may."""


class ThreadDeletedError(CheckpointerError):
    """The thread was deleted after this run began; its late writes are refused so that it stays deleted.

    So is a put of a checkpoint that was deleted with it. `copy_thread` onto the id ends that."""


class ThreadBusyError(CheckpointerError):
    """The thread changed between reading and writing it, each time it was tried."""


class WitnessError(CheckpointerError):
    """The `witness` that the saver was given raised an error. The write itself is done."""


class CheckpointCorruptError(CheckpointerError):
    """Stored bytes are not what was written."""


class IntegrityKeyError(CheckpointCorruptError):
    """A record without a key, or with an unknown one, where a key is required."""


class ArchiveDamagedError(CheckpointCorruptError):
    """Bytes of an archive are not those that were written, or it is cut. `thread_id`: the thread that cannot be read; None: no
    thread is concerned."""

    def __init__(self, message: str, thread_id: str | None = None) -> None:
        super().__init__(message)
        self.thread_id = thread_id


class EncryptionKeyError(CheckpointCorruptError):
    """A record or a chunk that is encrypted with a key this saver does not have."""


class KeyProviderError(CheckpointerError):
    """The key provider raised, or what it gave is no key. Nothing of that thread was read or written."""


class CheckpointLostError(CheckpointerError):
    """Something that must be there is gone: evicted, or deleted by somebody else."""


class LayoutError(CheckpointerError):
    """The data under this prefix needs another version of this package."""


class FormatError(CheckpointCorruptError, LayoutError):
    """A format byte this version does not know: the bytes were damaged, or a newer version wrote them."""


class ServerUnavailableError(CheckpointerError, ConnectionError):
    """The server gave no answer. Whether a write arrived is not known; repeating it is safe."""


class ServerRefusedError(CheckpointerError):
    """The server answered with a refusal. Nothing was written."""


class DurabilityError(CheckpointerError):
    """The write exists on the primary, but not on as many replicas or disks as `durability` asks for. Repeating it is safe
    and waits again."""


class EmbeddedServerError(CheckpointerError, RuntimeError):
    """The private server of `RedisSaver.embedded` could not be found or started."""
