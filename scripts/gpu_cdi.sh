#!/usr/bin/env bash
# Sees to it that a CDI spec for this machine's NVIDIA GPUs exists. Writes one only when nothing else keeps one.
#
#   scripts/gpu_cdi.sh           write when missing
#   FORCE=1 scripts/gpu_cdi.sh   write in any case
set -euo pipefail

SPEC=${CDI_SPEC:-/etc/cdi/nvidia.yaml}
die() { printf 'gpu-cdi: %s\n' "$*" >&2; exit 1; }

command -v nvidia-smi >/dev/null 2>&1 && nvidia-smi -L >/dev/null 2>&1 \
  || die "no NVIDIA GPU answers (nvidia-smi -L); install the driver first"
command -v nvidia-ctk >/dev/null 2>&1 || die "nvidia-ctk is missing; install NVIDIA's container toolkit 1.18 or newer"

names() { nvidia-ctk cdi list 2>/dev/null | grep '^nvidia.com/gpu=' || true; }

# The toolkit (1.18 and newer) has a service that writes the spec at boot and after driver updates. A second spec of the
# same devices makes every one of them ambiguous, so its file is left alone.
if command -v systemctl >/dev/null 2>&1 && systemctl is-enabled --quiet nvidia-cdi-refresh.path 2>/dev/null; then
  if [ -n "$(names)" ]; then
    echo "gpu-cdi: the toolkit's refresh service keeps the spec; nothing to do:"; names; exit 0
  fi
  die "the toolkit's refresh service is on but made no spec; look at: journalctl -u nvidia-cdi-refresh.service"
fi
if [ -n "$(names)" ] && [ "${FORCE:-}" != 1 ]; then
  echo "gpu-cdi: a spec is there (FORCE=1 writes $SPEC anew):"; names; exit 0
fi
[ -w "$(dirname "$SPEC")" ] || [ -w "$(dirname "$(dirname "$SPEC")")" ] || die "$SPEC can't be written; run this as root"
mkdir -p "$(dirname "$SPEC")"
nvidia-ctk cdi generate --output="$SPEC"
echo "gpu-cdi: wrote $SPEC:"; names
