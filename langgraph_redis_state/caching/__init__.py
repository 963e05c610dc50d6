"""Caches: what one process need not send, read, verify or serialize again.

A cache is only a hint. The server checks each reference, and the content of a digest never changes, so no entry can be stale.

bounded     a map of bounded size in bytes, and a lock that works after fork
parts       chunks and pages: as received, as verified
manifests   the references of recent checkpoints
messages    LangChain messages that were serialized before
revived     LangChain messages that were read before

Imported by `serialization`, `operations`, `history`, `verification`, `state`. May import `storage` and `errors`.
"""
