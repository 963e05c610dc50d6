"""A route that prunes as the agent server does. `langgraph dev` itself offers "delete" only, over HTTP."""

from __future__ import annotations

from langgraph_api._checkpointer import get_checkpointer
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


async def prune(request: Request) -> JSONResponse:
    asked = await request.json()
    saver = await get_checkpointer()
    await saver.aprune(asked["thread_ids"], strategy=asked["strategy"])
    return JSONResponse({})


app = Starlette(routes=[Route("/prune", prune, methods=["POST"])])
