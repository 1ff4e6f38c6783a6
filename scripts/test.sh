#!/usr/bin/env bash
# Run every test, after saying which tiers this machine can run in full. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PWD/.cache/bin:$PATH"

have() { printf '  %-12s %s\n' "$1" "$2"; }

echo "== tiers"
have unit "yes"
have contract "yes"
have integration "yes: PostgreSQL and Redis from URL settings, else from PATH, else from wheels"
if [ -e .venv/.sdxl-installed ]; then
  have sdxl "yes: $(.venv/bin/python -c 'from importlib.metadata import version as v; print("torch", v("torch"), "diffusers", v("diffusers"))')"
else
  have sdxl "no, skipped: torch is not installed (DF_SKIP_SDXL=${DF_SKIP_SDXL:-}); make setup-sdxl adds it"
fi
if command -v versitygw >/dev/null; then
  have s3 "yes: $(command -v versitygw)"
elif [ -n "${DF_TEST_S3_ENDPOINT:-}" ]; then
  have s3 "yes: ${DF_TEST_S3_ENDPOINT}"
else
  have s3 "no, skipped: no versitygw on PATH and no Go to build one (make s3-server)"
fi
exec .venv/bin/python -m pytest "$@"
