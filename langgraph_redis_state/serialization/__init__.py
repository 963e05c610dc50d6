"""Conversion between LangGraph's checkpoints and records. Pure functions.

encode   a checkpoint, or a pending write, to the bytes that are sent
decode   stored bytes, verified, to what LangGraph gets
deltas   what DeltaChannels are rebuilt from where ancestors were removed

Imported by `operations`, `history`, `state`. May import `storage`, `caching` and LangGraph's types. Must not yield effects.
"""
