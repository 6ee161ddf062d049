#!/usr/bin/env bash
# Boots one machine: gives the namespaces that it was started in a disk, a /tmp, a /dev/shm and a host name of their
# own, hides the project, and runs the command given. As process 1 it collects the orphans of all others.
# Takes from the environment: MACHINE, DISK, VENV, PROJECT.
set -euo pipefail

hostname "$MACHINE"
mkdir -p "$DISK/home" "$DISK/tmp" "$DISK/venv"
chmod 1777 "$DISK/tmp"
mount --bind "$DISK" /mnt
mount --bind "$VENV" /mnt/venv
mount -t tmpfs -o size=2g tmpfs /dev/shm

# The machine has the dependencies, not the project: that comes with the job. What a job installs or caches beside the
# packages stays on this machine, in memory.
mkdir -p /mnt/overlay
mount -t tmpfs -o size=1g tmpfs /mnt/overlay
mkdir /mnt/overlay/upper /mnt/overlay/work
packages=$(echo "$VENV"/lib/python*/site-packages)
held=/mnt/venv${packages#"$VENV"}
mount -t overlay -o "lowerdir=$packages,upperdir=/mnt/overlay/upper,workdir=/mnt/overlay/work" overlay "$held"
rm -rf "$held"/dhpf-*.dist-info "$held"/__editable__*dhpf* "$held"/dhpf

mount -t tmpfs -o size=1m tmpfs "$PROJECT"
mount --bind /mnt/tmp /tmp
mkdir -p "$VENV"
mount --bind /mnt/venv "$VENV"
mount --bind "$held" "$packages"
cd /mnt

"$@" &
wait $!
