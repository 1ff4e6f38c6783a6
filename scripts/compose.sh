#!/usr/bin/env bash
# Docker Compose with the files of this project: scripts/compose.sh COMMAND [ARGUMENT]...     GPU=1 lays gpu.yaml over it
set -euo pipefail
cd "$(dirname "$0")/.."

if docker compose version >/dev/null 2>&1; then COMPOSE=(docker compose)
elif command -v docker-compose >/dev/null 2>&1; then COMPOSE=(docker-compose)
else echo "compose: neither 'docker compose' nor docker-compose is installed; without containers: make dev" >&2; exit 1; fi

FILES=(-f compose/compose.yaml)
[ "${GPU:-}" != 1 ] || FILES+=(-f compose/gpu.yaml)
[ -z "${COMPOSE_EXTRA:-}" ] || FILES+=(-f "$COMPOSE_EXTRA")
ENV_FILE=(); [ ! -f .env ] || ENV_FILE=(--env-file .env)
exec "${COMPOSE[@]}" "${ENV_FILE[@]}" "${FILES[@]}" "$@"
