# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
#
# Functions of the scenarios counters-*.sh. They change a target of each kind in every way, and the next
# run has to end with a replica. The kinds are those of CountedKind and others, which have no counter.
# A line with CELLS shows which changes made the run fall back to a full comparison.
#
# The ways. Each changes bytes that the next run does not read if the counter is unchanged:
#   none      nothing is changed
#   512 4096  one direct write of so many bytes
#   buffered  100 bytes through the page cache
#   held      the same, while another program keeps the device open: the page is still dirty
#   mmap      a store through a mapping
#   discard   BLKDISCARD, or a punched hole in an image
#   zero      fallocate(FALLOC_FL_ZERO_RANGE), for which a device does what BLKZEROOUT does
#   replay    mount -o ro, which replays the journal of ext4
#   below     a write to the device below the target: $below, the target starts at MiB $start of it
#   resize    cut, and made as large as before
#   replace   another volume, file or place under the same name, with other bytes
#   merge     a classic snapshot is taken, written and merged
#   rollback  a thin snapshot is taken, written and merged
#   move      pvmove to another disk and back, with a write between the two

# source_group: vg0, with a volume that has two snapshots, so that runs go from one to the other.
source_group() {
    volume_group vg0 ${disk}a
    # It is a file system whose journal is to be replayed: the device of a mounted one.
    lvcreate -qq -y --type thin-pool -L 60M -n pool vg0
    lvcreate -qq -y -V 16M --thinpool pool -n root vg0
    truncate -s 16M /tmp/mounted
    mkfs.ext4 -q -F /tmp/mounted
    mount -o loop /tmp/mounted /mnt
    random 9000000 >/mnt/file
    sync
    echo more >/mnt/more
    sync /mnt/more
    dd if="$(losetup -n -O NAME -j /tmp/mounted)" of=/dev/vg0/root bs=1M oflag=direct 2>/dev/null
    umount /mnt
    lvcreate -qq -y -s -kn -pr -n one vg0/root
    dd if=/dev/urandom of=/dev/vg0/root bs=4k seek=3000 count=1 oflag=direct conv=notrunc 2>/dev/null
    lvcreate -qq -y -s -kn -pr -n two vg0/root
}

# run: the target becomes a replica of the other snapshot. The output is in $output.
run() {
    local before=$last
    if [ "$last" = one ]; then last=two; else last=one; fi
    expect 0 blkferry -v --overwrite --size-policy "$policy" --since vg0/$before vg0/$last "$path"
}
# is_replica: as far as the source goes.
is_replica() { [ "$(digest "$path" 16777216)" = "$(digest /dev/vg0/$last)" ]; }
xfs() { xfs_io "$@" "$path" >/dev/null; }
# written DEVICE MIB: one direct write, 6 MiB and a bit behind that place.
written() { dd if=/tmp/.random of="$1" bs=4k seek=$(($2 * 256 + 1700)) count=1 oflag=direct conv=notrunc 2>/dev/null; }
# changed WAY: changes the target at $path.
changed() {
    # Of a volume: GROUP/NAME.
    local volume=${path#/dev/}
    local group=${volume%/*}
    case $1 in
        512) dd if=/tmp/.random of="$path" bs=512 seek=12288 count=1 oflag=direct conv=notrunc 2>/dev/null ;;
        4096) dd if=/tmp/.random of="$path" bs=4096 seek=1537 count=1 oflag=direct conv=notrunc 2>/dev/null ;;
        buffered) dd if=/tmp/.random of="$path" bs=100 seek=62950 count=1 conv=notrunc 2>/dev/null ;;
        held)
            sleep 1000 <"$path" &
            holder=$!
            dd if=/tmp/.random of="$path" bs=100 seek=62950 count=1 conv=notrunc 2>/dev/null ;;
        mmap) xfs -c "mmap -w 6m 256k" -c "mwrite -S 0x61 6300k 10" ;;
        discard)
            if [ -b "$path" ]; then blkdiscard -o 6M -l 1M "$path"; else xfs -c "fpunch 6m 64k"; fi ;;
        zero) xfs -c "fzero 6m 64k" ;;
        replay)
            if [ -b "$path" ]; then
                mount -o ro "$path" /mnt
                umount /mnt
            else
                mount -o ro "$(losetup -f --show "$path")" /mnt
                umount /mnt
                losetup -d "$(losetup -n -O NAME -j "$path")"
            fi ;;
        below) written "$below" "$start" ;;
        merge)
            lvcreate -qq -y -s -L 4M -n changed "$volume"
            written "/dev/$group/changed" 0
            merged "$group/changed" ;;
        rollback)
            lvcreate -qq -y -s -kn -n changed "$volume"
            written "/dev/$group/changed" 0
            merged "$group/changed" ;;
        move)
            pvmove -qq -i 1 -n "${volume#*/}" ${disk}b ${disk}c
            written "$path" 0
            pvmove -qq -i 1 -n "${volume#*/}" ${disk}c ${disk}b ;;
        *) "${1}_$kind" ;;
    esac
}
# resize_volume, replace_volume, …: resize and replace of each kind.
resize_volume() {
    # Another volume has the extents for a while.
    lvreduce -qq -y -f -L 8M "$volume"
    lvcreate -qq -y -Zn -l 100%FREE -n other "$group"
    # All of it: where the extents are in it depends on LVM.
    dd if=/dev/zero of="/dev/$group/other" bs=1M oflag=direct 2>/dev/null || true
    lvremove -qq -y "$group/other"
    lvextend -qq -y -L 16M "$volume"
}
replace_volume() {
    lvcreate -qq -y -Zn -L 16M -n changed "$group"
    dd if="$path" of="/dev/$group/changed" bs=1M count=16 oflag=direct 2>/dev/null
    written "/dev/$group/changed" 0
    lvremove -qq -y "$volume"
    lvrename -qq "$group" changed "${volume#*/}"
}
resize_thin() {
    lvreduce -qq -y -f -L 4M "$volume"
    lvextend -qq -y -L 16M "$volume"
    # What was cut off is not given back to the pool.
    written "$path" 0
}
replace_thin() {
    lvcreate -qq -y -s -kn -n changed "$volume"
    written "/dev/$group/changed" 0
    lvremove -qq -y "$volume"
    lvrename -qq "$group" changed "${volume#*/}"
}
resize_partition() {
    partitioned 2048 +8M
    written "$below" $((start + 4))
    partitioned 2048 +16M
}
replace_partition() {
    dd if="$path" of=/tmp/replaced bs=1M 2>/dev/null
    partitioned 40960 +16M
    dd if=/tmp/replaced of="$path" bs=1M oflag=direct 2>/dev/null
    rm /tmp/replaced
    written "$path" 0
}
# partitioned FIRST END: the disk $below has one partition, $path.
partitioned() {
    sgdisk -Z "$below" >/dev/null 2>&1 || true
    sgdisk -n "1:$1:$2" "$below" >/dev/null
    blockdev --rereadpt "$below"
    node "$path"
}
resize_image() {
    truncate -s 6M "$path"
    truncate -s 16M "$path"
}
replace_image() {
    cp "$path" /images/replaced
    written /images/replaced 0
    mv /images/replaced "$path"
}
resize_loop() {
    truncate -s 6M "$below"
    losetup -c "$path"
    truncate -s 16M "$below"
    losetup -c "$path"
}
replace_loop() {
    cp "$below" /images/replaced
    written /images/replaced 0
    losetup -d "$path"
    losetup "$path" /images/replaced
    mv /images/replaced "$below"
}
# A table that is restored: nothing is left of it but the writes through it.
replace_table() {
    echo "0 32768 linear $below 2048" | dmsetup load table
    dmsetup suspend --noudevsync table
    dmsetup resume --noudevsync table
    written "$path" 0
    echo "0 32768 linear $below 0" | dmsetup load table
    dmsetup suspend --noudevsync table
    dmsetup resume --noudevsync table
}
merged() {
    lvconvert -qq -y --merge "$1"
    becomes is_gone "$1"
}
# cells KIND LABEL PATH WAY...: whether a run after each way reads only the ranges of the map, or all.
cells() {
    kind=$1
    path=$3
    policy=prefix
    [ -b "$path" ] || policy=resize
    last=one
    local label=$2 way
    shift 3
    line=$label:
    counted=0
    run
    is_replica || fail "$label: $path is no replica: $output"
    for way in "$@"; do
        holder=
        if [ "$way" != none ]; then
            changed "$way" || fail "$label: there is no way $way"
            ! is_replica || fail "$label, $way: $path is as it was"
        fi
        run
        is_replica || fail "$label, $way: $path is no replica: $output"
        [ -z "$holder" ] || { kill "$holder" && wait "$holder" || true; }
        case $output in
            *'falls back to a full comparison'*) line="$line $way=all" ;;
            *'bytes have changed since'*)
                line="$line $way=map"
                # The ways change only bytes outside of the map.
                [ "$way" = none ] || fail "$label, $way: it went unnoticed: $output"
                counted=1
                ;;
            *) fail "$label, $way: the output has neither message: $output" ;;
        esac
    done
    echo "CELLS $line"
}
# is COUNTED: whether a run used the map of an unchanged target.
is() { [ "$counted" = "$1" ] || fail "$line: $output"; }
