"""State without a graph: two small APIs on the saver's own verbs, which plan and run every write and removal.

persistence   RedisStatePersistence: the surface, one line a method      versioning   its operations
metadata      what describes a version: numbers, tags, checksums
agents        AgentCheckpointer: the surface                             agent_state  the state as plain JSON

Imported by the package's `__init__` only. May import everything. Has no scripts, keys or bytes of its own.
"""
