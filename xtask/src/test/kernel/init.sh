#!/bin/busybox sh
# The guest's first program, out of the initial RAM disk: mounts the host's file system,
# which nothing can be written to, below one in memory, and goes on there.
b=/bin/busybox

die() {
    echo "init: $*"
    $b poweroff -f
}

$b mount -t proc proc /proc
$b mount -t devtmpfs dev /dev
$b mount -t sysfs sys /sys
for module in $($b cat /modules/order); do
    $b insmod "/modules/$module" || die "cannot load $module"
done
$b mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro host /lower ||
    die "cannot mount the host's file system"
$b mount -t tmpfs tmpfs /memory && $b mkdir /memory/upper /memory/work
$b mount -t overlay -o lowerdir=/lower,upperdir=/memory/upper,workdir=/memory/work \
    overlay /root || die "cannot mount the overlay"
$b mount -t tmpfs tmpfs /root/run
$b cp /guest.sh /job.sh /root/run/
for dir in proc sys dev; do
    $b mount --move /$dir /root/$dir
done
exec $b switch_root /root /bin/sh /run/guest.sh
