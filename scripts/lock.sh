#!/usr/bin/env bash
# Write the hashed locks. They name no host, so any registry or mirror can serve them.
#
#   scripts/lock.sh             keep every pin that still satisfies pyproject.toml
#   scripts/lock.sh --upgrade   take the newest versions
#
# locks/base.txt  all that runs and tests Dream Forge without torch (extras: embedded, dev)
# locks/sdxl.txt  what the sdxl extra needs beside torch. torch is pinned exactly in pyproject.toml and installed
#                 apart from this: its CPU and CUDA builds share a version but not a hash (docs/adr/0009).
# locks/api.txt, locks/operator.txt, locks/runner.txt, locks/cli.txt
#                 what an image of that process installs (docs/adr/0014): parts of base.txt, pin for pin
set -euo pipefail
cd "$(dirname "$0")/.."
UV=${UV:-$([ -x .venv/bin/uv ] && echo .venv/bin/uv || echo uv)}
# A folder of wheels in the environment would put its local versions and hashes into the locks.
unset PIP_FIND_LINKS UV_FIND_LINKS

compile() {
  "$UV" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate "$@" pyproject.toml
}

compile --extra embedded --extra dev --output-file locks/base.txt "$@" >/dev/null
compile --extra sdxl --constraints locks/base.txt --output-file locks/sdxl.txt "$@" >/dev/null

# The torch stack is what torch alone pulls in: GPU libraries and compilers by the hundred megabytes.
stack=$(sed -nE 's/^(torch|triton|cuda-[a-z-]+|nvidia-[a-z0-9-]+)==.*/\1/p' locks/sdxl.txt | grep -vx nvidia-ml-py | sort -u)
omit=()
for name in $stack; do omit+=(--no-emit-package "$name"); done
compile --extra sdxl --constraints locks/base.txt --output-file locks/sdxl.txt "${omit[@]}" "$@" >/dev/null

# base.txt constrains these, so none of them moves by itself.
compile --extra api --extra cluster --constraints locks/base.txt --output-file locks/api.txt >/dev/null
compile --extra operator --constraints locks/base.txt --output-file locks/operator.txt >/dev/null
compile --extra runner --constraints locks/base.txt --output-file locks/runner.txt >/dev/null
compile --extra cli --extra db --constraints locks/base.txt --output-file locks/cli.txt >/dev/null

wc -l locks/*.txt
