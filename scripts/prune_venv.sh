#!/bin/sh
# Takes out of an image's environment what no process of ours can reach; about half of its size.
#
#   prune_venv.sh VENV      the Dockerfiles run it while they build; sh and find are all it needs
set -eu
cd "$1"/lib/python3*/site-packages

# The cluster client's generated classes: our two modules that call a cluster send and read plain JSON
# (tests/contract/test_images.py holds them to it). The packages themselves are imported, and stay.
if [ -d kubernetes ]; then
  find kubernetes -type f \( -path '*/client/api/*' -o -path '*/client/models/*' \) ! -name '__init__.*' -delete
fi

# The store's client knows a few hundred services of one cloud; left are the store and the ways to log in.
if [ -d botocore ]; then
  find botocore/data -mindepth 1 -maxdepth 1 -type d ! -name s3 ! -name sts ! -name 'sso*' -exec rm -r {} +
fi

find . -type d -name tests -prune -exec rm -r {} +
find . -type f \( -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.cpp' -o -name '*.h' \) ! -path './torch/*' \
  ! -path './triton/*' ! -path './nvidia/*' -delete
