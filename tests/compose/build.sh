#!/usr/bin/env bash
# Builds Docker Compose from Go modules into .cache/bin (git-ignored), for machines that have an engine and no Compose, or
# podman alone. Does nothing when it is there already. Needs Go 1.24 or newer; about 80 s on 2 cores.
set -euo pipefail

VERSION=v2.40.3
cd "$(dirname "$0")/../.."
BIN="$PWD/.cache/bin"
STAMP="$BIN/docker-compose.$VERSION"

if docker compose version >/dev/null 2>&1; then
  echo "compose: docker has it already"
  exit 0
fi
if [ -x "$BIN/docker-compose" ] && [ -e "$STAMP" ]; then
  echo "compose: docker-compose $VERSION is built ($BIN/docker-compose)"
  exit 0
fi
if ! command -v go >/dev/null 2>&1; then
  echo "compose: not built, Go is not installed (1.24 or newer is needed)" >&2
  exit 1
fi

mkdir -p "$BIN"
WORK="$(mktemp -d)"
trap 'chmod -R u+w "$WORK"; rm -rf "$WORK"' EXIT
cd "$WORK"
printf 'module compose\n\ngo 1.24\n' >go.mod
echo "compose: building docker-compose $VERSION with $(go env GOVERSION) (about a minute)"
# Its go.mod replaces modules, which `go install` refuses: so it is built as the main module, from a copy.
MODULE=github.com/docker/compose/v2
SOURCE="$(go mod download -json $MODULE@$VERSION | sed -n 's/.*"Dir": "\(.*\)",/\1/p')"
cp -r "$SOURCE" source
chmod -R u+w source
cd source
CGO_ENABLED=0 GOFLAGS=-mod=mod go build -buildvcs=false -trimpath \
  -ldflags "-s -w -X $MODULE/internal.Version=$VERSION" -o "$BIN/docker-compose" ./cmd
touch "$STAMP"
echo "compose: $BIN/docker-compose"
