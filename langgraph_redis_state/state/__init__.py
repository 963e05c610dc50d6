"""Two small APIs for state that is no LangGraph checkpoint, on the saver's own verbs.

persistence   RedisStatePersistence: the surface, one line a method      versioning   its operations
metadata      versions and tags as their records tell them
agents        AgentCheckpointer: the surface                             agent_state  its JSON form

Imported by the package's `__init__` only. May import everything.
"""
