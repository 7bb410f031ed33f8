#!/bin/bash
# A throw-away machine with a real systemd as its process 1 (systemd_box.py), made of namespaces: systemd_box.sh FOLDER
# Its files are this machine's, with what the box writes in memory above them: that lasts from boot to boot and is gone
# when this script ends. Its network is this machine's. /tmp, /run and /dev are its own. Root only.
# FOLDER/pid is process 1 of the boot that runs, as this machine counts; FOLDER/cgroup the box's control group.
set -eu

boot() { # in namespaces of this boot's own; $1 is the layer that is written to
    mount -n --make-rprivate /
    root=$1/root
    mkdir -p "$1/upper" "$1/work" "$root"
    mount -n -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$root"
    mount -n -t proc -o nosuid,nodev,noexec proc "$root/proc"
    for each in sys sysrq-trigger; do # they are this machine's own
        [ -e "$root/proc/$each" ] || continue
        mount -n --bind "$root/proc/$each" "$root/proc/$each"
        mount -n -o remount,bind,ro "$root/proc/$each"
    done
    mount -n -t sysfs -o nosuid,nodev,noexec,ro sysfs "$root/sys"
    mount -n -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$root/sys/fs/cgroup"
    mount -n -t tmpfs -o mode=755 tmpfs "$root/dev"
    for each in null zero full random urandom tty; do
        : >"$root/dev/$each"
        mount -n --bind "/dev/$each" "$root/dev/$each"
    done
    mkdir "$root/dev/pts" "$root/dev/shm"
    ln -s pts/ptmx "$root/dev/ptmx"
    ln -s /proc/self/fd "$root/dev/fd"
    mount -n -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts "$root/dev/pts"
    for each in dev/shm tmp; do mount -n -t tmpfs -o mode=1777 tmpfs "$root/$each"; done
    mount -n -t tmpfs -o mode=755 tmpfs "$root/run"
    mkdir -p "$root/run/systemd/system" "$root/run/log/journal"
    # Of the machine's own services only those that every boot needs; what the box enables itself is started.
    for each in systemd-{sysctl,remount-fs,modules-load,firstboot,udevd,udev-trigger,logind}.service getty.target \
        sys-kernel-{debug,tracing,config}.mount sys-fs-fuse-connections.mount dev-{hugepages,mqueue}.mount \
        proc-sys-fs-binfmt_misc.automount; do ln -sf /dev/null "$root/run/systemd/system/$each"; done
    if [ ! -e "$1/booted" ]; then
        rm -rf "$root"/etc/systemd/system/*.wants "$root"/etc/systemd/system/*.requires
        touch "$1/booted"
    fi
    cd "$root"
    mkdir -p .old
    pivot_root . .old
    umount -n -l /.old
    rmdir /.old
    mount -n --make-rshared /
    drop=-sys_module,-sys_time,-sys_boot,-mac_admin,-mac_override,-sys_rawio,-syslog,-wake_alarm,-block_suspend
    exec env -i container=box PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        setpriv --bounding-set=$drop /lib/systemd/systemd --log-target=journal --unit=multi-user.target
}

folder=$(realpath "$1")
if [ "${2-}" = boot ]; then
    boot "$3"
fi

control=/sys/fs/cgroup/unified
[ -d $control ] || control=/sys/fs/cgroup
echo "$control/execute-engine-box-$$" >"$folder/cgroup"
mkdir "$(cat "$folder/cgroup")"
echo $$ >"$(cat "$folder/cgroup")/cgroup.procs"
layer=/mnt # of this script's own mount namespace: not on the file system that lies below it
mount -n -t tmpfs -o mode=755 tmpfs $layer
while [ ! -e "$folder/stop" ]; do
    # This script must not be where the next process 1 makes its groups: a new one below for each boot.
    unshare --mount --uts --ipc --cgroup --pid --fork --kill-child bash "$0" "$folder" boot $layer &
    for _ in $(seq 200); do
        child=$(pgrep -P $! || true)
        [ -z "$child" ] || break
        sleep 0.05
    done
    echo "$child" >"$folder/pid.new"
    mv "$folder/pid.new" "$folder/pid"
    wait $! || true
    rm -f "$folder/pid"
done
