#!/usr/bin/env bash
# Runs the tests with the lowest version of every dependency that pyproject.toml allows, where `make` runs them with the
# newest: LangGraph's conformance suite, the contract by verb, drivers, packets, durability, connections and verification on the embedded
# server, real graphs, and the contract on servers in Docker. What those versions bring along is held in lowest-constraints.txt.
# Then some of it with versions of redis-py between the lowest and the newest, and graphs with the LangGraph releases that change
# what they load in place (1.2.0, the lowest that the demo allows, to 1.2.12) and the oldest that langgraph-checkpoint 4.3 goes with.
# Needs what `make integration` needs. The environment is made anew each time, in .venv/lowest.
set -euo pipefail
export PYTHONDONTWRITEBYTECODE= # every worker and process would compile all modules again
cd "$(dirname "$0")/.."
place=.venv/lowest

rm -rf "$place"
"${PYTHON:-python3}" -m venv "$place"
"$place/bin/python" - > "$place/lowest.txt" <<'PY'
import re
from pathlib import Path

try:
    import tomllib
except ImportError:  # Python 3.10; pip carries the same
    from pip._vendor import tomli as tomllib

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"]
wanted = set(project["dependencies"]).union(*(extras[name] for name in ("embedded", "cli", "web", "zstd", "encryption", "demo", "dev")))
for requirement in sorted(wanted):
    name = re.match(r"[\w-]+", requirement)[0]
    if name not in (project["name"], "mypy", "ruff", "zizmor", "check-jsonschema"):  # itself, and tools that only look at the code
        print(re.sub(r"^([^>;]+)>=([^,;]+)(,[^;]*)?", r"\1==\2", requirement))
PY
"$place/bin/python" -m pip --disable-pip-version-check --quiet install \
  -r "$place/lowest.txt" -c integration_tests/lowest-constraints.txt -e . </dev/null
echo "lowest versions: $(tr '\n' ' ' < "$place/lowest.txt")"
wire=(tests/contract/test_conformance.py tests/unit/test_drivers.py
  tests/client/test_{batches,durability,urls,injected_clients,closing}.py)
verbs=(tests/contract/test_{list,put,put_writes,ids,metadata,delete,prune,copy,ttl,large,sharing}.py
  tests/contract/test_{graphs_on_old_checkpoints,delta_channels}.py
  tests/client/test_{loops,servers}.py tests/damage/test_{lost_keys,verify,repair}.py)
# LangGraph 1.2.0 itself differs from run to run in some graphs of test_graphs.py (the order of parallel tasks); graphs that go back to
# old checkpoints, DeltaChannels after removals, and the graphs of test_sharing.py run here
"$place/bin/python" -m pytest -q -n auto "${wire[@]}" "${verbs[@]}" </dev/null
"$place/bin/python" -m pytest -q integration_tests/test_contract.py integration_tests/test_topologies.py \
  -k "redis:8.0-resp or cluster-resp or sentinel-resp or topologies" </dev/null

# what lies between the lowest and the newest redis-py
for version in 6.4.0 7.0.1; do
  "$place/bin/python" -m pip --disable-pip-version-check --quiet install "redis==$version" </dev/null
  echo "redis-py $version"
  "$place/bin/python" -m pytest -q -n auto "${wire[@]}" </dev/null
done

# graphs with other releases of LangGraph; what these bring along is not held
for version in 1.2.12 1.0.6; do
  "$place/bin/python" -m pip --disable-pip-version-check --quiet install "langgraph==$version" </dev/null
  echo "LangGraph $version with langgraph-checkpoint $("$place/bin/python" -c \
    'from importlib.metadata import version; print(version("langgraph-checkpoint"))')"
  "$place/bin/python" -m pytest -q tests/contract/test_sharing.py </dev/null
done
