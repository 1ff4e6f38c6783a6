#!/usr/bin/env bash
# Print what this machine has that Dream Forge could use. Reads only; secrets are masked.
set -uo pipefail
cd "$(dirname "$0")/.."

title() { printf '\n\033[1m%s\033[0m\n' "$*"; }
row() { printf '  %-16s %s\n' "$1" "${2:-not found}"; }
first() { "$@" 2>/dev/null | head -n 1; }
tool() { # name, then the command that tells its version
  local name=$1; shift
  if command -v "$1" >/dev/null 2>&1; then row "$name" "$(first "$@")"; else row "$name"; fi
}

title "System"
row os "$(. /etc/os-release 2>/dev/null && echo "${PRETTY_NAME:-}" || uname -s)"
row kernel "$(uname -sr)"
row cpus "$(getconf _NPROCESSORS_ONLN)"
row memory "$(awk '/MemTotal/ {printf "%.1f GiB", $2 / 1048576}' /proc/meminfo 2>/dev/null)"
row disk "$(df -h . | awk 'NR == 2 {print $4 " free"}')"
row groups "$(id -nG)"

title "Tools"
tool python python3 --version
tool uv uv --version
tool go go version
tool postgres postgres --version
tool redis redis-server --version
tool versitygw versitygw --version
tool docker docker --version
row compose "$(first docker compose version || first docker-compose version)"
tool podman podman --version
tool kubectl kubectl version --client

title "GPU"
tool driver nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
tool toolkit nvidia-ctk --version
row "cdi specs" "$(ls /etc/cdi /var/run/cdi 2>/dev/null | grep -E '\.(ya?ml|json)$' | tr '\n' ' ')"
row runtimes "$(docker info --format '{{range $name, $_ := .Runtimes}}{{$name}} {{end}}' 2>/dev/null)"

title "Settings in the environment"
env | grep -E '^(DF|NVIDIA|CUDA)_' | sort \
  | sed -E 's/^([A-Z0-9_]*(SECRET|TOKEN|PASSWORD|KEY|URL)[A-Z0-9_]*)=.*/\1=***/; s/^/  /' || true
for name in HF_TOKEN CIVITAI_TOKEN; do [ -n "${!name:-}" ] && echo "  $name=***"; done
if [ -f .env ]; then echo "  and .env: $(grep -cE '^[A-Z]' .env) variables"; fi
