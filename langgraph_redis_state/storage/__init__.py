"""Bytes: every name, record and chunk as it stands on the server.

Pure functions over bytes. docs/layout.md is the same as a table; golden bytes in tests hold both.

keys            names of keys, hash fields and index members
records         stamp, header and checksum of a record        bodies   what it holds: values, and what they refer to
seals           checksums, signatures, encryption             names    ids, namespaces and tags under a key
thread_fields   counts (S), settings (T), tags (G), lists of pending writes (W)
chunks          where values are cut, and lists of references
codec           compression, digests, checksums, size limits
ids             UUIDv6 as LangGraph makes them

Imported by every room but `client`. May import `errors` and `validation` only. Must not know LangGraph's types, effects or
clients.
"""
