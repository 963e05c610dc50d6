"""Memory: what one process need not send, read, verify or serialize again.

Only ever a hint. The server checks each reference, and what a digest names never changes, so nothing here can be out of date.

bounded     a map of bounded size in bytes, and a lock that survives fork
parts       chunks and pages: as received, as verified
manifests   what the checkpoints seen last refer to
messages    LangChain messages that were serialized before

Imported by `serialization`, `operations`, `history`, `verification`, `state`. May import `storage` and `errors`.
"""
