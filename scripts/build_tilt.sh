#!/usr/bin/env bash
# Builds Tilt from its Go module into .cache/cluster/bin: for tests of the Tiltfile on machines without a release of it.
# Does nothing when it is there already. Needs Go 1.26 and a C compiler; five minutes the first time.
set -euo pipefail
cd "$(dirname "$0")/.."
VERSION=v0.33.21
BIN=${CLUSTER_BIN:-$PWD/.cache/cluster/bin}

if [ -x "$BIN/tilt" ] && "$BIN/tilt" version 2>/dev/null | grep -q "${VERSION#v}"; then echo "tilt: $VERSION is built"; exit 0; fi
command -v go >/dev/null 2>&1 || { echo "tilt: not built, Go is not installed (1.26 or newer is needed)" >&2; exit 1; }
mkdir -p "$BIN"
WORK=$(mktemp -d); trap 'chmod -R u+w "$WORK"; rm -rf "$WORK"' EXIT
cd "$WORK"
printf 'module tools\n\ngo 1.26.0\n' >go.mod
SOURCE=$(go mod download -json "github.com/tilt-dev/tilt@$VERSION" | sed -n 's/.*"Dir": "\(.*\)",/\1/p')
# Its module file has replacements, which `go install` refuses: build it in a copy.
cp -r "$SOURCE" source; chmod -R u+w source; cd source
echo '<html></html>' >pkg/assets/build/index.html  # without any page it refuses to start, `tilt ci` too
CGO_ENABLED=1 GOFLAGS=-mod=mod go build -buildvcs=false -ldflags "-s -w -X main.version=${VERSION#v}" -o "$BIN/tilt" ./cmd/tilt
"$BIN/tilt" version
