#!/usr/bin/env bash
# Make .venv on a machine that has Python >= 3.11, make and git, and nothing else.
#
#   scripts/setup.sh base   everything but torch, from the hashed lock, and the project itself (editable)
#   scripts/setup.sh sdxl   the SDXL stack on top
#   scripts/setup.sh uv     only say which uv is used
#
# The Makefile calls this behind stamp files, so a second call costs nothing.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '== %s\n' "$*"; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }

find_python() {
  # 3.11 and 3.12 first: the embedded Redis has wheels for those; newer ones compile it and need a C compiler.
  local candidate
  for candidate in ${PYTHON:-} python3.11 python3.12 python3 python3.13 python3.14 python; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
      "$candidate" -c 'import sys; print(sys.executable)'
      return
    fi
  done
  die "no Python 3.11 or newer on PATH; install one, or name it: make setup PYTHON=/path/to/python3.12"
}

make_venv() {
  if [ -x .venv/bin/python ]; then
    # One without pip is half of one: its making was cut short, or the package that has pip was not there.
    if uv --version >/dev/null 2>&1 || [ -x .venv/bin/uv ] || .venv/bin/python -m pip --version >/dev/null 2>&1; then
      return
    fi
    rm -rf .venv
  fi
  local python
  python=$(find_python)
  say "creating .venv with $("$python" --version)"
  if uv --version >/dev/null 2>&1; then
    uv venv --quiet --python "$python" .venv
  else
    "$python" -m venv .venv || die "python -m venv failed; on Debian and Ubuntu: apt install python3-venv"
  fi
}

find_uv() {
  # On PATH, else from the registry into .venv: one small wheel.
  if uv --version >/dev/null 2>&1; then
    echo uv
  else
    [ -x .venv/bin/uv ] || .venv/bin/python -m pip install --quiet --disable-pip-version-check uv >&2 ||
      die "uv can't be installed into .venv; is there a package registry within reach?"
    echo .venv/bin/uv
  fi
}

install_base() {
  # --no-deps: the lock is complete, and a test holds it against pyproject.toml.
  say "installing locks/base.txt"
  "$UV" pip install --quiet --python .venv/bin/python --require-hashes --no-deps -r locks/base.txt
  # The build backend comes from the lock too, so nothing unhashed takes part.
  "$UV" pip install --quiet --python .venv/bin/python --no-build-isolation --no-deps --editable .
}

install_sdxl() {
  say "installing locks/sdxl.txt"
  "$UV" pip install --quiet --python .venv/bin/python --require-hashes --no-deps -r locks/sdxl.txt
  local torch
  torch=$(sed -nE 's/^ *"(torch==[^"]+)".*/\1/p' pyproject.toml)
  [ -n "$torch" ] || die "pyproject.toml pins no torch"
  say "installing $torch (with CUDA libraries this is large the first time)"
  # pip's folder of local wheels, if there is one, may hold the small CPU build of this very version.
  if [ -z "${UV_FIND_LINKS:-}" ] && [ -d "${PIP_FIND_LINKS:-}" ]; then export UV_FIND_LINKS=$PIP_FIND_LINKS; fi
  "$UV" pip install --quiet --python .venv/bin/python "$torch"
}

make_venv
UV=$(find_uv) || exit 1
case ${1:-base} in
  base) install_base ;;
  sdxl) install_sdxl ;;
  uv) "$UV" --version ;;
  *) die "unknown part: $1" ;;
esac
