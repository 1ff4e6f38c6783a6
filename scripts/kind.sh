#!/usr/bin/env bash
# Everything on a kind cluster called dreamforge: makes it when missing, builds and loads the images, applies the overlay.
# Run again it brings what has changed since: the tag is always `dev`, so neither Job nor pods would notice otherwise.
set -euo pipefail
cd "$(dirname "$0")/.."
CLUSTER=dreamforge

for tool in kind kubectl; do
  command -v "$tool" >/dev/null 2>&1 || { echo "kind: $tool is not installed; docs/install/kind.md says what is needed" >&2; exit 1; }
done
kind get clusters 2>/dev/null | grep -qx "$CLUSTER" || kind create cluster --name "$CLUSTER"
kubectl config use-context "kind-$CLUSTER" >/dev/null

for part in api operator runner; do CLUSTER_LOAD="kind load image-archive --name $CLUSTER" scripts/load_image.sh "$part" "dreamforge-$part:dev"; done
# A Job runs once, and its template can't be changed.
kubectl -n dreamforge delete job dreamforge-migrate --ignore-not-found
kubectl apply -k kustomize/overlays/kind
for part in api worker operator; do kubectl -n dreamforge rollout restart "deployment/dreamforge-$part"; done
kubectl -n dreamforge wait --for=condition=Complete job/dreamforge-migrate --timeout=300s
for part in api worker operator; do kubectl -n dreamforge rollout status "deployment/dreamforge-$part" --timeout=300s; done
echo "ready: kubectl -n dreamforge port-forward service/dreamforge-api 8001"
