"""The demo: a passenger desk that loses its process in the middle of a claim and does not notice.

`python -m demo` (or `make demo`) runs it. To read it: `papers.py` (the texts), `tools.py` (what the desk can look up),
`desk.py` (the graph), `play.py` (the acts), `worker.py` (a process that plays the first ones), `story.py` (the parent,
which kills and resumes), `cost.py` (what was stored), `screen.py` (how it is shown).
"""
