#!/usr/bin/env bash
# Builds versitygw, the S3 server that contract and integration tests run against, into .cache/bin (git-ignored).
# Does nothing when it is there already. Needs Go 1.24 or newer; without it, tests that need S3 skip and say so.
set -euo pipefail

VERSION=v1.8.0
cd "$(dirname "$0")/.."
BIN="$PWD/.cache/bin"
STAMP="$BIN/versitygw.$VERSION"

if [ -x "$BIN/versitygw" ] && [ -e "$STAMP" ]; then
  echo "s3 server: versitygw $VERSION is built ($BIN/versitygw)"
  exit 0
fi

if ! command -v go >/dev/null 2>&1; then
  echo "s3 server: not built, Go is not installed (1.24 or newer is needed)" >&2
  exit 1
fi
GO_VERSION="$(go env GOVERSION)"
MINOR="$(printf '%s' "$GO_VERSION" | sed -n 's/^go1\.\([0-9]*\).*/\1/p')"
if [ -z "$MINOR" ] || [ "$MINOR" -lt 24 ]; then
  echo "s3 server: not built, Go 1.24 or newer is needed and this is $GO_VERSION" >&2
  exit 1
fi

mkdir -p "$BIN"
echo "s3 server: building versitygw $VERSION with $GO_VERSION (about a minute)"
GOBIN="$BIN" go install -trimpath "github.com/versity/versitygw/cmd/versitygw@$VERSION"
touch "$STAMP"
echo "s3 server: $BIN/versitygw"
