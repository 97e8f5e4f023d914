#!/bin/sh
# Makes a node out of a machine whose root is this node's, seen read-only below a layer in memory, and runs tests on it.
#
#     guest.sh CHECKOUT TEST…
#
# What systemd would have done for a node with control groups of version 2 is done here; where each test went is written
# to the machine's second port as it happens (tests/kernel/telling.py).
checkout=$1
shift
cd / || exit 1
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1
mkdir -p /dev/pts /dev/shm /dev/mqueue
ln -s /proc/self/fd /dev/fd
for number in 0,stdin 1,stdout 2,stderr; do ln -s "fd/${number%,*}" "/dev/${number#*,}"; done
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t mqueue mqueue /dev/mqueue
mount -t securityfs securityfs /sys/kernel/security
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t tmpfs -o mode=755 run /run
# The checkout may lie in /tmp, which is to be empty but for it.
mkdir /run/checkout
mount --bind "$checkout" /run/checkout
mount -t tmpfs -o mode=1777 tmp /tmp
mkdir -p "$checkout"
mount --move /run/checkout "$checkout"
echo "+cpuset +cpu +io +memory +pids" >/sys/fs/cgroup/cgroup.subtree_control
mkdir /sys/fs/cgroup/init.scope /sys/fs/cgroup/system.slice /sys/fs/cgroup/system.slice/tests.service
echo "+cpu +memory +pids" >/sys/fs/cgroup/system.slice/cgroup.subtree_control
echo $$ >/sys/fs/cgroup/system.slice/tests.service/cgroup.procs
ip link set lo up
hostname other-kernel
port=$(grep -l -x told /sys/class/virtio-ports/*/name)
port=${port%/name}
cd "$checkout" || exit 1
export TOLD="/dev/${port##*/}"
.venv/bin/python -m pytest -p tests.kernel.telling -p no:cacheprovider -p no:xdist -q --color=no --basetemp=/tmp/t "$@" </dev/null
echo "pytest ended with $?"
