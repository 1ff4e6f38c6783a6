#!/usr/bin/env bash
# Builds the programs of the test cluster from Go modules into .cache/cluster/bin (git-ignored), or into CLUSTER_BIN, which
# several checkouts may share; what is there already in the wanted version is left alone. About 8 minutes on 2 cores the first time, under a minute with a warm Go cache (6 GB).
# Needs Go 1.26; runc also needs gcc, pkg-config and libseccomp-dev and is left out where they are missing.
set -euo pipefail

KUBERNETES=v1.36.3 ETCD=v3.6.5 CONTAINERD=v2.4.2 RUNC=v1.5.2 COREDNS=v1.14.6

cd "$(dirname "$0")/../.."
BIN="${CLUSTER_BIN:-$PWD/.cache/cluster/bin}"
mkdir -p "$BIN"
WORK="$(mktemp -d)"
trap 'rm -rf "$WORK"' EXIT
exec 9>"$BIN/.lock"
flock 9 # a second build waits, and then finds everything built
export GOBIN=$BIN CGO_ENABLED=0 GOFLAGS="-trimpath -buildvcs=false" GOTOOLCHAIN=local

have() { [ -x "$BIN/$1" ] && [ "$(cat "$BIN/.$1.version" 2>/dev/null)" = "$2" ]; }
say() { echo "cluster: $*"; }
built() {
  echo "$2" >"$BIN/.$1.version"
  say "built $1 $2"
}

module() { # module NAME [LINE...]: a new Go module to build in, and its folder as the current one
  mkdir "$WORK/$1"
  cd "$WORK/$1"
  printf 'module %s\n\ngo 1.26.0\n\n' "$1" >go.mod
  printf '%s\n' "${@:2}" >>go.mod
}

kubernetes() { # kubernetes COMMAND...
  local command missing=()
  for command in "$@"; do have "$command" $KUBERNETES || missing+=("$command"); done
  [ ${#missing[@]} -gt 0 ] || return 0
  say "building ${missing[*]} $KUBERNETES (minutes, the first time)"
  module kubernetes "require k8s.io/kubernetes $KUBERNETES"
  # It pins its own libraries at v0.0.0: each needs a replacement by the release that goes with it.
  local source
  source="$(go mod download -json k8s.io/kubernetes@$KUBERNETES | sed -n 's/.*"Dir": "\(.*\)",/\1/p')"
  sed -n "s#^\t\(k8s.io/[a-z0-9-]*\) => ./staging/.*#replace \1 => \1 v0.${KUBERNETES#v1.}#p" "$source/go.mod" >>go.mod
  {
    printf 'package tools\n\n'
    printf 'import _ "k8s.io/kubernetes/cmd/%s"\n' "$@"
  } >tools.go
  GOFLAGS=-buildvcs=false go mod tidy 2>/dev/null
  local version=k8s.io/component-base/version minor=${KUBERNETES#v1.}
  go build -o "$BIN/" \
    -ldflags "-s -w -X $version.gitVersion=$KUBERNETES -X $version.gitMajor=1 -X $version.gitMinor=${minor%.*}" \
    "${missing[@]/#/k8s.io/kubernetes/cmd/}"
  for command in "${missing[@]}"; do built "$command" $KUBERNETES; done
}

etcd() {
  have etcd $ETCD && return
  say "building etcd $ETCD"
  module etcd "require go.etcd.io/etcd/server/v3 $ETCD"
  cat >main.go <<'GO'
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() { etcdmain.Main(os.Args) }
GO
  GOFLAGS=-buildvcs=false go mod tidy 2>/dev/null
  go build -o "$BIN/etcd" .
  built etcd $ETCD
}

containerd() {
  have containerd $CONTAINERD && return
  say "building containerd $CONTAINERD"
  local commands=github.com/containerd/containerd/v2/cmd
  go install -tags 'no_btrfs no_devmapper no_zfs' "$commands/containerd@$CONTAINERD"
  go install "$commands/containerd-shim-runc-v2@$CONTAINERD" "$commands/ctr@$CONTAINERD"
  built containerd $CONTAINERD
}

runc() {
  have runc $RUNC && return
  if ! command -v gcc >/dev/null || ! pkg-config --exists libseccomp 2>/dev/null; then
    say "runc left out: it needs gcc, pkg-config and libseccomp-dev (\`make cluster-up\` as root installs them)" >&2
    return
  fi
  say "building runc $RUNC"
  CGO_ENABLED=1 go install -tags seccomp github.com/opencontainers/runc@$RUNC
  built runc $RUNC
}

coredns() {
  have coredns $COREDNS && return
  say "building coredns $COREDNS"
  go install -ldflags '-s -w' github.com/coredns/coredns@$COREDNS
  built coredns $COREDNS
}

pause() { # what holds a pod's namespaces
  [ -x "$BIN/pause" ] && return
  module pause
  cat >main.go <<'GO'
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGINT, syscall.SIGTERM)
	<-end
}
GO
  go build -ldflags '-s -w' -o "$BIN/pause" .
  say "built pause"
}

if [ "$(uname -s)" != Linux ]; then
  say "not built: it runs on Linux only" >&2
  exit 1
fi
if ! command -v go >/dev/null 2>&1; then
  say "not built: Go is not installed (1.26 or newer is needed)" >&2
  exit 1
fi
MINOR="$(go env GOVERSION | sed -n 's/^go1\.\([0-9]*\).*/\1/p')"
if [ -z "$MINOR" ] || [ "$MINOR" -lt 26 ]; then
  say "not built: Go 1.26 or newer is needed and this is $(go env GOVERSION)" >&2
  exit 1
fi

kubernetes kube-apiserver kube-controller-manager kube-scheduler kubelet kube-proxy kubectl
etcd
module tools
containerd
runc
coredns
pause
say "programs are in $BIN"
