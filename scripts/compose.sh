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
# It stands in URLs as it is.
LINE="^[[:space:]]*DF_COMPOSE_PASSWORD=['\"]?([^'\"]*)['\"]?[[:space:]]*$"
PASSWORD=${DF_COMPOSE_PASSWORD:-$(sed -nE "s/[[:space:]]#.*//; s/$LINE/\1/p" .env 2>/dev/null | tail -1)}
case $PASSWORD in *[!A-Za-z0-9._~-]*)
  echo "compose: DF_COMPOSE_PASSWORD may hold letters, digits and . _ ~ - only; make one with: openssl rand -hex 24" >&2; exit 1
esac
ENV_FILE=(); [ ! -f .env ] || ENV_FILE=(--env-file .env)
exec "${COMPOSE[@]}" "${ENV_FILE[@]}" "${FILES[@]}" "$@"
