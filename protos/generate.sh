#!/bin/sh
# Generates the Python stubs beside the contract. OUT is the target folder (default: here). Run by `make protos`.
set -eu
cd "$(dirname "$0")"
PY=${PYTHON:-../.venv/bin/python}
OUT=${1:-.}
bin=$(dirname "$PY")
files=$(find agentic_sdr -name '*.proto' | sort)
PATH="$bin:$PATH" "$PY" -m grpc_tools.protoc -I . \
  --python_out="$OUT" --grpc_python_out="$OUT" --mypy_out=quiet:"$OUT" --mypy_grpc_out=quiet:"$OUT" $files
# Files without a service get stubs with nothing in them; they say nothing, so they are not kept.
for f in $files; do
  grep -q '^service ' "$f" || rm -f "$OUT/${f%.proto}_pb2_grpc.py" "$OUT/${f%.proto}_pb2_grpc.pyi"
done
