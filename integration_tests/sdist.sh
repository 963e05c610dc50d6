#!/usr/bin/env bash
# Builds the source distribution, unpacks it elsewhere, and runs its tests there, as somebody who packages it does: all of them are
# collected, and those run that read the files beside the package (arguments of pytest replace that choice). Needs no Docker.
set -euo pipefail
export PYTHONDONTWRITEBYTECODE=
root=$(cd "$(dirname "$0")/.." && pwd)
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

"${PYTHON:-python3}" -m venv "$place/venv"
pip() { "$place/venv/bin/python" -m pip --disable-pip-version-check --quiet "$@" </dev/null; }
pip install build
"$place/venv/bin/python" -m build --sdist --outdir "$place/dist" "$root" >/dev/null </dev/null
tar -xzf "$place"/dist/*.tar.gz -C "$place"
cd "$place"/langgraph_redis_state-*/
pip install "$PWD[dev]"
"$place/venv/bin/python" -m pytest tests --collect-only -q -m "" </dev/null | tail -n 1
if [ $# -eq 0 ]; then
  set -- -q -n 2 tests/docs tests/unit tests/contract/test_put.py
fi
"$place/venv/bin/python" -m pytest "$@" </dev/null
