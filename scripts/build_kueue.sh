#!/usr/bin/env bash
# Builds Kueue's controller manager from its Go module into .cache/cluster/bin, with the manifests of its own config folder
# beside it, for tests of queues. Does nothing when it is there already. Needs Go 1.26; five minutes on 2 cores the first time.
set -euo pipefail
cd "$(dirname "$0")/.."
VERSION=v0.19.2
BIN=${CLUSTER_BIN:-$PWD/.cache/cluster/bin}

if [ -x "$BIN/kueue" ] && [ "$(cat "$BIN/.kueue.version" 2>/dev/null)" = "$VERSION" ]; then echo "kueue: $VERSION is built"; exit 0; fi
command -v go >/dev/null 2>&1 || { echo "kueue: not built, Go is not installed (1.26 or newer is needed)" >&2; exit 1; }
mkdir -p "$BIN"
WORK=$(mktemp -d); trap 'rm -rf "$WORK"' EXIT
cd "$WORK"
printf 'module tools\n\ngo 1.26.0\n' >go.mod
SOURCE=$(go mod download -json "sigs.k8s.io/kueue@$VERSION" | sed -n 's/.*"Dir": "\(.*\)",/\1/p')
KUBECTL=$BIN/kubectl
[ -x "$KUBECTL" ] || KUBECTL=kubectl
"$KUBECTL" kustomize "$SOURCE/config/default" >kueue.yaml
CGO_ENABLED=0 GOTOOLCHAIN=local go -C "$SOURCE" build -trimpath -buildvcs=false -ldflags '-s -w' -o "$WORK/kueue" ./cmd/kueue
mv kueue kueue.yaml "$BIN/"
echo "$VERSION" >"$BIN/.kueue.version"
echo "kueue: built $VERSION"
