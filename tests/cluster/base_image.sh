#!/usr/bin/env bash
# Makes the base image of the cluster tests out of this host's Debian packages: Debian with its own Python, laid out as the
# public python images are (/usr/local/bin/python). It stands in for them where no image registry can be reached, and is kept
# in buildah's store, so it is made once.   base_image.sh NAME:TAG      Needs root, buildah and debootstrap; about 50 s.
set -euo pipefail
NAME=$1
if buildah inspect --type image "$NAME" >/dev/null 2>&1; then
  exit 0
fi

SUITE=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
MIRROR=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' "Codename: $SUITE" | head -n1)
if [ -z "$MIRROR" ]; then
  echo "base image: apt knows no mirror of ${SUITE:-this system}: run apt-get update" >&2
  exit 1
fi
echo "base image: making $NAME from the packages of $SUITE (about a minute, once)"
CONTAINER=$(buildah from scratch)
trap 'buildah rm "$CONTAINER" >/dev/null' EXIT
ROOT=$(buildah mount "$CONTAINER")
debootstrap --variant=minbase --include=ca-certificates,python3,python3-pip,python3-venv "$SUITE" "$ROOT" "$MIRROR" >/dev/null
# The last two are this host's; the container runtime gives its own.
rm -rf "$ROOT"/var/cache/apt/archives/*.deb "$ROOT"/var/lib/apt/lists/* "$ROOT"/usr/share/{doc,man,info}/* \
  "$ROOT/etc/resolv.conf" "$ROOT/etc/hostname"
rm -f "$ROOT"/usr/lib/python3*/EXTERNALLY-MANAGED # Debian's pip refuses to install for the system, the public images' does not
ln -s /usr/bin/python3 "$ROOT/usr/local/bin/python"
ln -s /usr/bin/pip3 "$ROOT/usr/local/bin/pip"
buildah config --env PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin --env LANG=C.UTF-8 \
  --cmd python "$CONTAINER"
buildah unmount "$CONTAINER" >/dev/null
buildah commit --quiet "$CONTAINER" "$NAME" >/dev/null
