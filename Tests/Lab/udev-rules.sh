# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: with udev, links and properties of snapshots and targets, the lock of a disk, and the event after a run
# seconds: 60
# disks: 200M 64M 80M 80M
start_udev
volume_group vg0 ${disk}a
volume_group vg1 ${disk}b
lvcreate -qq -y --type thin-pool -L 100M -n pool vg0
lvcreate -qq -y -V 32M --thinpool pool -n thin vg0
lvcreate -qq -y -L 32M -n linear vg0
lvcreate -qq -y -L 32M -n replica vg1

# leads LINK DEVICE: the link leads to it.
leads() {
    [ "$(readlink -f "$1")" = "$(readlink -f "$2")" ] || fail "$1 leads to $(readlink -f "$1"), not to $2"
}
properties() { udevadm info --query=property --name="$1"; }
# has and lacks DEVICE PROPERTY: of udev's database.
has() { properties "$1" | grep -qx "$2" || fail "$1 has no $2: $(properties "$1")"; }
lacks() { ! properties "$1" | grep -x "$2" || fail "$1 has $2"; }
# looks DEVICE: udev looks at it again, and its links would win against others of the same priority.
looks() {
    udevadm trigger --action=change --name-match="$1"
    udevadm settle
}
# file_system DEVICE: makes one, with data that takes a run some time; its link is $link.
file_system() {
    mkfs.ext4 -q -F "$1"
    fill "$1" 8 24
    udevadm settle
    link=/dev/disk/by-uuid/$(blkid -p -s UUID -o value "$1")
    [ -L "$link" ] || fail "there is no $link"
}

images ${disk}d
for volume in thin linear; do
    step "$volume: its snapshot is hidden"
    file_system /dev/vg0/$volume
    expect 0 blkferry refresh --snapshot-size 50% vg0/$volume /images/$volume.img
    udevadm settle
    snapshot=/dev/vg0/$(lvs --noheadings -o lv_name vg0 | grep -o "$volume[.]blkferry[^ ]*")
    for device in "$snapshot" /dev/vg0/$volume "$snapshot"; do
        looks "$device"
        leads "$link" /dev/vg0/$volume
        has "$snapshot" UDISKS_IGNORE=1
        has "$snapshot" SYSTEMD_READY=0
        lacks /dev/vg0/$volume UDISKS_IGNORE=1
        has /dev/vg0/$volume SYSTEMD_READY=1
    done
    step "$volume: a renamed snapshot belongs to the user"
    for name in mine "${snapshot#/dev/vg0/}-old"; do
        lvrename -qq "$snapshot" /dev/vg0/"$name"
        snapshot=/dev/vg0/$name
        looks "$snapshot"
        lacks "$snapshot" UDISKS_IGNORE=1
        has "$snapshot" SYSTEMD_READY=1
    done
    lvremove -qq -y "$snapshot"
done

# Only a run over the network can be slow.
there=http://127.0.0.1:8080
serve --export-all
# hidden_run SOURCE TARGET: the target is hidden during a run, and no longer, also if the run is killed.
hidden_run() {
    local command="blkferry --whole-file --bwlimit 2M"
    begun /tmp/log "$2" $command "$there$1" "$2"
    looks "$2"
    leads "$link" "$1"
    has "$2" UDISKS_IGNORE=1
    lacks "$2" SYSTEMD_READY=0
    lacks "$1" UDISKS_IGNORE=1
    kill -INT $run
    wait $run || [ $? = 130 ] || fail "$(cat /tmp/log)"
    udevadm settle
    lacks "$2" UDISKS_IGNORE=1
    begun /tmp/log "$2" $command "$there$1" "$2"
    udevadm settle
    has "$2" UDISKS_IGNORE=1
    leads "$link" "$1"
    kill -KILL $run
    wait $run || true
    # udev watches the device.
    released() { ! properties "$2" | grep -qx UDISKS_IGNORE=1; }
    becomes released "$@"
}

step 'a volume as the target'
expect 0 blkferry /dev/vg0/linear /dev/vg1/replica
udevadm settle
lacks /dev/vg1/replica UDISKS_IGNORE=1
hidden_run /dev/vg0/linear /dev/vg1/replica

step 'a disk as the target: udev waits for the lock'
umount /images
wipefs --quiet --all ${disk}d
sgdisk -n 1:2048:+32M ${disk}c >/dev/null
udevadm settle
file_system ${disk}c1
begun /tmp/log ${disk}d blkferry --bwlimit 8M $there${disk}c ${disk}d
udevadm trigger --action=change --name-match=${disk}d
sleep 0.5
! flock --shared --nonblock ${disk}d true || fail 'there is no lock'
lacks ${disk}d ID_PART_TABLE_TYPE=gpt
[ ! -e ${disk}d1 ] || fail 'udev has read the partitions'
wait $run || fail "$(cat /tmp/log)"
udevadm settle
has ${disk}d ID_PART_TABLE_TYPE=gpt
has ${disk}d1 "ID_FS_UUID=${link##*/}"

step 'a partition as the target'
looks ${disk}d1
hidden_run ${disk}c1 ${disk}d1

step 'a disk starts the services that are enabled and have it as a target'
mkdir -p /etc/blkferry/replicas
replica() { printf 'source = vg0/linear\ntarget = %s # a disk\nquiet\n' "$2" >/etc/blkferry/replicas/"$1".conf; }
partition=/dev/disk/by-partuuid/$(blkid -p -s PART_ENTRY_UUID -o value ${disk}d1)
replica one "$partition"
replica two vg1/replica
replica off ${disk}d
looks ${disk}d1
lacks ${disk}d1 'SYSTEMD_WANTS=.*'
wants=/etc/systemd/system/blkferry-disks.target.wants
mkdir -p $wants
for name in one two gone; do ln -s /dev/null "$wants/blkferry-refresh@$name.service"; done
for device in ${disk}d1 /dev/vg1/replica ${disk}d; do looks $device; done
has ${disk}d1 SYSTEMD_WANTS=blkferry-refresh@one.service
has /dev/vg1/replica SYSTEMD_WANTS=blkferry-refresh@two.service
lacks ${disk}d 'SYSTEMD_WANTS=.*'
lacks /dev/vg0/linear 'SYSTEMD_WANTS=.*'
replica two "$partition"
looks ${disk}d1
has ${disk}d1 'SYSTEMD_WANTS=blkferry-refresh@one.service blkferry-refresh@two.service'

step 'one event after a run, and one before it where udev ignores the lock'
kill $server
udevadm control --exit
udevadm monitor --kernel --subsystem-match=block >/tmp/events &
monitor=$!
# events COUNT SOURCE TARGET: a run asks for so many.
events() {
    local name count
    name=$(basename "$(readlink -f "$3")")
    expect 0 blkferry "$2" "$3"
    sleep 1
    count=$(grep -c "change .*/$name " /tmp/events || true)
    [ "$count" = "$1" ] || fail "$count events: $(cat /tmp/events)"
}
events 1 ${disk}c ${disk}d
events 2 /dev/vg0/linear /dev/vg1/replica
kill $monitor
