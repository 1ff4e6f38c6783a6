#!/usr/bin/env bash
# The first process of the machine that the test cluster runs in: a host of its own in mount, network, process, IPC and
# host-name namespaces. When this process ends, the kernel ends all others, and their mounts, addresses and rules with them.
#   init.sh FOLDER PROGRAMS      FOLDER/requests is a pipe: each line names a script in FOLDER/parts to run in the background.
# Being the first process, bash also buries orphans (container shims), which no other process waits for.
set -euo pipefail
FOLDER=$1
export PATH=$2:/usr/sbin:/usr/bin:/sbin:/bin

mount --make-rshared /
for at in /var/lib/kubelet /var/lib/containerd /var/log/pods /var/log/containers; do
  mkdir -p "$at" "$FOLDER/disk$at" # the kubelet's folder of device plugins is a constant: here each cluster has its own
  mount --bind "$FOLDER/disk$at" "$at"
done
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/cni /run/cdi /run/lock
cp "${BASH_SOURCE%/*}/pods.conflist" /run/cni/10-pods.conflist
echo "nameserver 127.0.0.1" >/run/resolv.conf

hostname dreamforge
ip link set lo up
sysctl -qw net.ipv4.ip_forward=1

exec 3<>"$FOLDER/requests"
touch "$FOLDER/booted"
while read -r name <&3; do
  setsid bash "$FOLDER/parts/$name" </dev/null >>"$FOLDER/logs/$name.log" 2>&1 3>&- &
done
