#!/usr/bin/env bash
# Build the image of a part and give it to the cluster under a name.    scripts/load_image.sh PART NAME
#
#   CLUSTER_LOAD="COMMAND"   takes an image archive as its last argument; by default what the current context needs
set -euo pipefail
cd "$(dirname "$0")/.."
PART=$1 NAME=$2
BUILT=dreamforge-$PART:built

TAG=built scripts/images.sh "$PART"

if [ -z "${CLUSTER_LOAD:-}" ]; then
  CONTEXT=$(kubectl config current-context)
  case $CONTEXT in
    kind-*) CLUSTER_LOAD="kind load image-archive --name ${CONTEXT#kind-}" ;;
    k3d-*) CLUSTER_LOAD="k3d image import --cluster ${CONTEXT#k3d-}" ;;
    dreamforge) CLUSTER_LOAD=".venv/bin/python -m tests.cluster import" ;;
    *) CLUSTER_LOAD="sudo k3s ctr images import" ;;
  esac
fi

FOLDER=$(mktemp -d); trap 'rm -rf "$FOLDER"' EXIT
for ENGINE in ${ENGINE:-docker podman buildah}; do
  case $ENGINE in
    docker) docker image inspect "$BUILT" >/dev/null 2>&1 || continue
      docker tag "$BUILT" "$NAME"; docker save -o "$FOLDER/image.tar" "$NAME"; break ;;
    podman | buildah) "$ENGINE" inspect --type image "$BUILT" >/dev/null 2>&1 || continue
      "$ENGINE" push --quiet "$BUILT" "docker-archive:$FOLDER/image.tar:$NAME"; break ;;
  esac
done
# shellcheck disable=SC2086 - a command and its arguments
$CLUSTER_LOAD "$FOLDER/image.tar"
