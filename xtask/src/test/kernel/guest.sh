# Goes on where the first program ends: readies what tests need of a machine, then runs
# those that the job lists. All that is printed goes to the second serial line, so that
# the kernel's own words never part a line of it.
exec </dev/null >/dev/ttyS1 2>&1
export HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export NO_COLOR=1
failed=0

# Called by the job for each test program.
run() {
    "$@" || failed=1
}

# Called by the job with the directory of this kernel's modules.
modules() {
    mkdir -p "/lib/modules/$(uname -r)"
    mount --bind "$1/$(uname -r)" "/lib/modules/$(uname -r)"
    # Nobody else here loads the drivers of what is plugged in.
    modprobe virtio_net
}

mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
ip link set lo up
echo "guest: kernel $(uname -r)"
. /run/job.sh
echo "guest: done $failed"

# Closing the line waits until all is out.
exec >/dev/null 2>&1
echo o >/proc/sysrq-trigger
sleep 60
