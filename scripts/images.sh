#!/usr/bin/env bash
# Builds the images: dreamforge-api, dreamforge-operator, dreamforge-runner, dreamforge-cli.
#
#   scripts/images.sh [api|operator|runner|cli]...     all four by default; then prints their sizes
#
#   ENGINE=docker|podman|buildah  which one builds; the first that works, in this order
#   EXTRAS=sketch|sdxl            what the runner can render (sdxl: gigabytes)
#   TAG=dev REGISTRY=             the name is [REGISTRY/]dreamforge-PART:TAG; TAG adds -sdxl to a runner that has it
#   BASE_IMAGE=python:3.13-slim-bookworm[@sha256:...]   the base of all four
#   PIP_CONF= CA_BUNDLE=          pip's configuration and certificates for the build alone; this machine's by default
set -euo pipefail
cd "$(dirname "$0")/.."

die() { printf 'images: %s\n' "$*" >&2; exit 1; }

works() {
  case $1 in
    docker) docker info >/dev/null 2>&1 && docker buildx version >/dev/null 2>&1 ;;
    podman) podman info >/dev/null 2>&1 ;;
    buildah) buildah info >/dev/null 2>&1 ;;
    *) die "ENGINE is docker, podman or buildah, not $1" ;;
  esac
}

find_engine() {
  local engine
  for engine in ${ENGINE:-docker podman buildah}; do
    if works "$engine"; then echo "$engine"; return; fi
  done
  die "none of these works here: ${ENGINE:-docker podman buildah}"
}

ENGINE=$(find_engine)
EXTRAS=${EXTRAS:-sketch} TAG=${TAG:-dev}
case $EXTRAS in sketch | sdxl) ;; *) die "EXTRAS is sketch or sdxl, not $EXTRAS" ;; esac
CONF=${PIP_CONF:-/etc/pip.conf} CA=${CA_BUNDLE:-${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}}
[ $# -gt 0 ] || set -- api operator runner cli

OPTIONS=()
[ -z "${BASE_IMAGE:-}" ] || OPTIONS+=(--build-arg "BASE=$BASE_IMAGE")
[ ! -f "$CONF" ] || OPTIONS+=(--secret "id=pip.conf,src=$CONF")
[ ! -f "$CA" ] || OPTIONS+=(--secret "id=ca.pem,src=$CA")
case $ENGINE in
  docker) COMMAND=(docker buildx build --load) ;;
  # chroot: needs no container runtime, so it works inside containers too.
  podman) COMMAND=(podman build --layers --force-rm --format docker --isolation "${BUILDAH_ISOLATION:-chroot}" --network host) ;;
  buildah) COMMAND=(buildah bud --layers --force-rm --format docker --pull=missing --isolation "${BUILDAH_ISOLATION:-chroot}" --network host) ;;
esac

name() {
  local suffix=
  if [ "$1" = runner ] && [ "$EXTRAS" = sdxl ]; then suffix=-sdxl; fi
  echo "${REGISTRY:+$REGISTRY/}dreamforge-$1:$TAG$suffix"
}

size() {
  case $ENGINE in
    buildah) buildah images --format '{{.Size}}' "$1" ;;
    *) "$ENGINE" images --format '{{.Size}}' "$1" ;;
  esac
}

for part in "$@"; do
  case $part in
    api | operator) file=$part/Dockerfile arguments=() ;;
    cli) file=tools/Dockerfile arguments=() ;;
    runner) file=runner-image/Dockerfile arguments=(--build-arg "EXTRAS=$EXTRAS") ;;
    *) die "no image called $part" ;;
  esac
  printf '== %s with %s\n' "$(name "$part")" "$ENGINE"
  "${COMMAND[@]}" "${OPTIONS[@]}" "${arguments[@]}" -f "$file" -t "$(name "$part")" .
done
for part in "$@"; do printf '%-40s %s\n' "$(name "$part")" "$(size "$(name "$part")")"; done
