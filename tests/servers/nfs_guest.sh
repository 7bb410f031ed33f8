#!/busybox sh
# The first process of the guest (nfs_guest.py). What stands on the kernel's command line is in its environment.
# The root is the machine's own, with what the guest writes in memory; the share is mounted into it.
/busybox mkdir -p /bin /proc /sys /dev /machine /memory /root
/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
fail() {
    echo "$*" >/dev/ttyS1
    poweroff -f -n # sync would wait for a share that is gone
}
while read -r module; do
    insmod "/modules/$module" || fail "insmod $module failed"
done </modules/order

ip address add 127.0.0.1/32 dev lo
ip link set lo up
ip address add 10.0.2.15/24 dev eth0
ip link set eth0 up
# The rest of 127.0.0.0/8 is the machine's: the hosts of the fleet have the same addresses for the guest.
echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet
ip route del local 127.0.0.0/8 dev lo table local 2>/dev/null
ip route add default via "$MACHINE" src 10.0.2.15
ip route add 127.0.0.0/8 via "$MACHINE" src 10.0.2.15

mount -t virtiofs -o ro machine /machine || fail "no files of the machine"
mount -t tmpfs memory /memory
mkdir /memory/upper /memory/work
mount -t overlay -o lowerdir=/machine,upperdir=/memory/upper,workdir=/memory/work overlay /root || fail "no overlay"
for each in proc sys dev; do mount -o bind "/$each" "/root/$each"; done
mount -t tmpfs run /root/run
mkdir -p "/root$MOUNT_POINT"
options=vers=4.2,addr=$MACHINE,clientaddr=10.0.2.15,port=$SHARE_PORT,$MOUNT_OPTIONS
mount -t nfs4 -o "$options" "$MACHINE:/share" "/root$MOUNT_POINT" || fail "the share was not mounted with $options"

stty -F /dev/ttyS1 -echo -opost -icrnl
HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    chroot /root /bin/bash "$SCRIPT" <>/dev/ttyS1 >&0 2>&0
echo "guest-status $?" >/dev/ttyS1
poweroff -f -n
