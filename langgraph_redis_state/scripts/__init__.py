"""What the server does: one Lua file a verb, and `commands`, one typed function for each.

A script is the text of the libraries that it includes (lib/) and of its verb; README.md lists all of them with keys, arguments,
reply and cost. `commands` encodes arguments, and gives replies as named tuples or raises: nowhere else is a reply indexed.
`following` says what a process knows of a thread that it wrote last, and makes what a write that follows brings.

Imported by `operations`, `history`, `verification`, `state`. May import `effects`, `storage`, `errors`. Must not decide what
a verb decides.
"""
