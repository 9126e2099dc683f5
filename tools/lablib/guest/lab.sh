# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
#
# Functions of the scenarios. They run under `dash -eu`; a command that fails ends them.

# The name of disks up to their letter, with User-mode Linux or with virtio.
disk=/dev/vd
[ ! -b /dev/ubda ] || disk=/dev/ubd

# fail TEXT...: ends the scenario with a reason.
fail() {
    echo "LAB failed: $*"
    exit 1
}

# step TEXT...: prints the next step, and the seconds since boot.
step() {
    read -r seconds _ </proc/uptime
    echo "--- $seconds s: $*"
}

# expect STATUS COMMAND...: runs a command that has to end with STATUS; its output stays in $output.
expect() {
    expected=$1
    shift
    status=0
    output=$("$@" 2>&1) || status=$?
    read -r seconds _ </proc/uptime
    echo "$seconds s $ $*"
    [ -z "$output" ] || echo "$output"
    [ "$status" = "$expected" ] || fail "$*: status $status, expected $expected"
}

# says TEXT: the last output contains TEXT.
says() {
    case $output in
        *"$1"*) ;;
        *) fail "no \"$1\" in the output" ;;
    esac
}

# same A B: both hold the same bytes; as far as the first one, a device, goes.
same() {
    local bytes first second
    bytes=$(blockdev --getsize64 "$1")
    first=$(digest "$1") && second=$(digest "$2" "$bytes") || fail "$1 or $2 cannot be read"
    [ -n "$first" ] && [ "$first" = "$second" ] || fail "$1 and $2 differ"
}

# differ A B
differ() { ! cmp -s "$1" "$2" || fail "$1 and $2 are equal"; }

# drawn WORD...: dd(1) of 32 MiB of random bytes, from another byte on each time. New random bytes for
# each use would take most of the time of all scenarios on an emulated processor.
drawn() {
    [ -e /tmp/.random ] || dd if=/dev/urandom of=/tmp/.random bs=1M count=32 2>/dev/null
    dd if=/tmp/.random bs=1M skip=$(od -An -N 3 -t u4 /dev/urandom | tr -d ' ') "$@" 2>/dev/null
}

# random COUNT: so many bytes; parts of those, of 16 MiB.
random() {
    local left=$1 part
    while [ "$left" -gt 0 ]; do
        part=$((left < 16777216 ? left : 16777216))
        drawn iflag=skip_bytes,count_bytes,fullblock count=$part
        left=$((left - part))
    done
}

# fill DEVICE OFFSET COUNT: random MiB from an offset in MiB, past the page cache.
fill() {
    local place=$2 left=$3 part
    while [ "$left" -gt 0 ]; do
        part=$((left < 16 ? left : 16))
        drawn of="$1" iflag=skip_bytes,fullblock oflag=direct conv=notrunc seek="$place" count=$part || return 1
        place=$((place + part)) left=$((left - part))
    done
}

# digest FILE [BYTES]: the CRC and size of it, or of its first bytes. A comparison byte by byte would take
# most of the time of all scenarios, since cmp(1) reads a device in steps of 4 KiB.
digest() {
    if [ -z "${2-}" ] || [ "$2" = "$(blockdev --getsize64 "$1" 2>/dev/null || stat -L -c %s "$1")" ]; then
        cksum <"$1"
    else
        dd if="$1" bs=1M count="$2" iflag=count_bytes,fullblock 2>/dev/null | cksum
    fi
}

# described DEVICE: its directory in sysfs.
described() { printf '/sys/dev/block/%d:%d' "0x$(stat -L -c %t "$1")" "0x$(stat -L -c %T "$1")"; }

# sectors_read DEVICE: how many sectors were read of it so far, of its line in sysfs (stat, field 3).
sectors_read() {
    # shellcheck disable=SC2046 # the fields
    set -- $(cat "$(described "$1")/stat")
    echo "$3"
}

# sectors_written DEVICE: how many were written to it (field 7).
sectors_written() {
    # shellcheck disable=SC2046 # the fields
    set -- $(cat "$(described "$1")/stat")
    echo "$7"
}

# begun LOG DEVICE COMMAND...: a run in the background, in $run, that has begun to write to the device.
begun() {
    local log=$1 device=$2 before
    shift 2
    before=$(sectors_written "$device")
    "$@" >"$log" 2>&1 &
    run=$!
    while [ "$(sectors_written "$device")" = "$before" ]; do
        kill -0 $run 2>/dev/null || fail "it was over before it had written: $(cat "$log")"
    done
}

# becomes COMMAND...: waits until it succeeds, for a minute or more.
becomes() {
    local try=0
    until "$@"; do
        try=$((try + 1))
        [ $try -le 300 ] || fail "not within a minute: $*"
        sleep 0.2
    done
}

# is_volume and is_gone VOLUME: whether LVM knows it, or not.
is_volume() { lvs "$1" >/dev/null 2>&1; }
is_gone() { ! is_volume "$1"; }

# volume_group NAME DISK...: a volume group of these disks.
volume_group() {
    local group=$1 volume
    shift
    for volume in "$@"; do pvcreate -qq -y "$volume"; done
    vgcreate -qq "$group" "$@"
}

# images DISK: a file system for images, at /images. /tmp is a tmpfs, which does not show every write.
images() {
    mkfs.ext4 -q -F -I 256 "$1"
    mkdir -p /images
    mount "$1" /images
}

# node DEVICE: makes the device file of a kernel device, where udev would.
node() {
    [ -b "$1" ] || mknod "$1" b $(tr : ' ' <"/sys/class/block/$(basename "$1")/dev")
}

# mapped NAME: a device of the device mapper, whose table is on standard input.
mapped() {
    dmsetup create --noudevrules --noudevsync "$1"
    dmsetup mknodes "$1"
    [ -b "/dev/mapper/$1" ] || fail "there is no /dev/mapper/$1"
}

# serve OPTION...: a server in the background, in $server, once it answers on port 8080.
serve() {
    blkferry serve -q "$@" &
    server=$!
    until blkferry list http://127.0.0.1:8080 >/dev/null 2>&1; do
        kill -0 $server 2>/dev/null || fail 'no server'
        sleep 0.2
    done
}

# start_udev: from now on udev makes links, and LVM waits for it.
start_udev() {
    sed -i 's/udev_sync = 0/udev_sync = 1/; s/udev_rules = 0/udev_rules = 1/' /etc/lvm/lvm.conf
    /lib/systemd/systemd-udevd --daemon
    udevadm trigger --type=all
    udevadm settle
}

# start_systemd TARGET...: systemd as the first process of a pid namespace of its own, with the units of
# the package; its targets are empty. Mounts that are made later are not seen by its services. From then
# on `systemctl` speaks with it, and `booted COMMAND...` runs a command among its processes.
start_systemd() {
    local name
    mkdir -p /run/systemd/system /var/tmp /var/lib
    for name in sysinit basic shutdown lab "$@"; do
        printf '[Unit]\nDescription=%s\n' "$name" >"/run/systemd/system/$name.target"
    done
    mkdir -p /sys/fs/cgroup
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    container=lab unshare -p -f --mount-proc /bin/systemd --system --unit=lab.target --log-target=console &
    becomes pidof systemd
    manager=$(pidof systemd | cut -d ' ' -f 1)
    becomes systemctl is-active lab.target
}
# systemd does not answer processes that it does not see.
booted() { nsenter -t "$manager" -m -p "$@"; }
systemctl() { booted /bin/systemctl "$@"; }

# drop_in UNIT LINE...: changes the unit by these lines; before systemd starts.
drop_in() {
    local unit=$1
    shift
    mkdir -p "/run/systemd/system/$unit.d"
    printf '%s\n' "$@" >"/run/systemd/system/$unit.d/lab.conf"
}
