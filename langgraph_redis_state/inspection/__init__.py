"""What the `lgrs` command and its web page share: values without their classes, what a thread waits for, what to show of it.

structural   a serializer that imports nothing and calls nothing: values as class and fields
diagnosis    why: what a thread waits for, from what is stored; pure
values       values as JSON and as text, safe to print
chat         messages and tool calls, as a conversation
selecting    THREAD@CHECKPOINT, names that are near
looking      what the commands and screens show, read by verbs of the saver
doctor       the server and its settings, and what to do about them

Imported by `cli` and `web`. May import what the package exports, and no room. Must not know click, rich or starlette.
"""
