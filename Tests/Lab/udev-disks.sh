# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: with systemd and udev, two disks in turn, of which each starts its refresh when it is plugged in
# host: /lib/systemd/systemd systemctl
# seconds: 60
start_udev
volume_group vg0 ${disk}a
lvcreate -qq -y --type thin-pool -L 100M -n pool vg0
lvcreate -qq -y -V 32M --thinpool pool -n thin vg0
fill /dev/vg0/thin 0 32
images ${disk}b
mkdir -p /etc/blkferry/replicas
for name in one two; do
    truncate -s 34M /images/$name
    sgdisk -n 1:2048:+32M /images/$name >/dev/null
    losetup -f -P --show /images/$name >/tmp/$name
    udevadm settle
    partition=/dev/disk/by-partuuid/$(blkid -p -s PART_ENTRY_UUID -o value "$(cat /tmp/$name)p1")
    [ -L "$partition" ] || fail "there is no $partition"
    printf 'source = vg0/thin\ntarget = %s\nquiet\n' "$partition" >/etc/blkferry/replicas/$name.conf
    losetup -d "$(cat /tmp/$name)"
done

step 'systemd, as the first process of its own processes'
mkdir -p /var/tmp /var/lib /run/systemd/system/blkferry-refresh@.service.d
for name in sysinit basic sockets shutdown lab; do
    printf '[Unit]\nDescription=%s\n' $name >/run/systemd/system/$name.target
done
printf '[Service]\nStandardError=append:/run/log\n' >/run/systemd/system/blkferry-refresh@.service.d/lab.conf
mkdir -p /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
unshare -p -f --mount-proc /bin/systemd --system --unit=lab.target --log-target=console &
becomes pidof systemd
manager=$(pidof systemd | cut -d ' ' -f 1)
# systemd does not answer processes that it does not see.
systemctl() { nsenter -t "$manager" -m -p /bin/systemctl "$@"; }
becomes systemctl is-active lab.target

# plug NAME and unplug NAME
plug() { losetup -f -P --show /images/"$1" >/tmp/"$1"; }
unplug() {
    udevadm settle
    losetup -d "$(cat /tmp/"$1")"
}
# is_replica NAME: its disk is equal to the source.
is_replica() { [ "$(digest "$(cat /tmp/"$1")p1" 2>/dev/null)" = "$(digest /dev/vg0/thin)" ]; }
# has_run NAME: its service has ended without an error.
has_run() { [ "$(systemctl show -P Result,ActiveState "blkferry-refresh@$1.service" | xargs)" = 'success inactive' ]; }

step 'a service that is not enabled stays off'
plug one
udevadm settle
sleep 2
expect 0 systemctl show -P ExecMainStartTimestampMonotonic blkferry-refresh@one.service
[ "$output" = 0 ] || fail 'it was started'
unplug one
expect 0 systemctl enable blkferry-refresh@one.service blkferry-refresh@two.service

for name in one two one; do
    step "$name"
    fill /dev/vg0/thin 3 1
    plug $name
    becomes is_replica $name
    becomes has_run $name
    unplug $name
done
[ "$(lvs --noheadings -o lv_name vg0 | grep -c blkferry)" = 2 ] || fail "each disk has its own base: $(lvs vg0)"
cat /run/log 2>/dev/null || true
