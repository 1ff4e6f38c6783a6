#!/usr/bin/env bash
# Regenerate everything that is generated, run every check, and demand that the tree did not change.
set -euo pipefail
cd "$(dirname "$0")/.."

make --no-print-directory lock openapi crds env-example fmt
.ci/run
if [ -n "$(git status --porcelain)" ]; then
  git status --short >&2
  echo "verify: the tree is not clean: commit what was regenerated" >&2
  exit 1
fi
