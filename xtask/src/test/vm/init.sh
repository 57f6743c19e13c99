#!/bin/busybox sh
# The first program of a machine of the testbed, out of the initial RAM disk: mounts the
# disk, puts into place what an installed machine would have, and starts systemd.
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
tries=0
until [ -b /dev/vda ]; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || die "there is no disk"
    $b sleep 0.1
done
$b mount -t ext4 /dev/vda /root || die "cannot mount the disk"
$b mkdir -p /root/usr/lib/modules /root/vagrant
# The kernel's modules, and what Vagrant shares with its machines.
for share in modules:/root/usr/lib/modules shared:/root/vagrant; do
    $b mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,ro \
        "${share%%:*}" "${share#*:}" || die "cannot mount ${share%%:*}"
done
$b cp /channel.sh /root/usr/local/sbin/channel.sh
$b cp /channel.service /root/etc/systemd/system/
$b mkdir -p /root/etc/systemd/system/multi-user.target.wants
$b ln -sf ../channel.service /root/etc/systemd/system/multi-user.target.wants/
for dir in proc sys dev; do
    $b mount --move /$dir /root/$dir
done
exec $b switch_root /root /sbin/init
