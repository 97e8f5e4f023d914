#!/bin/sh
# The first program of the machine: makes this node's files its root, and goes on there. Written into an initramfs
# beside the guest's own.
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
for list in mmio 0x001a node; do
    for module in $(cat "/modules/$list"); do insmod "/modules/$module.ko" 2>/dev/null; done
done
mkdir /lower /upper
mount -t virtiofs -o ro node /lower
mount -t tmpfs -o mode=755 upper /upper
mkdir /upper/files /upper/work
mount -t overlay -o lowerdir=/lower,upperdir=/upper/files,workdir=/upper/work root /new
cd /new || exit 1
for folder in proc sys dev; do mount --move "/$folder" "$folder"; done
mount --move . /
chroot . /bin/sh "$@"
echo "the machine ends"
/bin/busybox reboot -f
