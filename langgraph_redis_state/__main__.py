"""`python -m langgraph_redis_state`: the `lgrs` command."""

from .cli import main

if __name__ == "__main__":
    main()
