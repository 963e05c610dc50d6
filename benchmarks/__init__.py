"""Measures `langgraph_redis_state` beside what a user would pick instead. `python -m benchmarks --help`."""
