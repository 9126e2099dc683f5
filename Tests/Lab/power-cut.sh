# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: the power is cut while a refresh takes its snapshots, writes and marks; every disk of dm-log-writes is judged
# seconds: 200
# when: named
# programs: ReplayWrites
# disks: 48M 200M 48M
#
# The first disk has the volume group of source and target, the second one the log of what is written to
# it, the third one what was on it before the run. What LVM writes is in the log as well: the snapshots, and
# the tags of the base. The next refresh compares everything, since a target on dm-log-writes has no
# persistent change counter.
modprobe dm-log-writes
sed -i 's/^devices {/&\n    filter = [ "a|^\/dev\/mapper\/logged$|", "r|.*|" ]/' /etc/lvm/lvm.conf
disk_sectors=$(blockdev --getsz ${disk}a)
# without_log: the volume group is on the disk itself.
without_log() { echo "0 $disk_sectors linear ${disk}a 0" | mapped logged; }
leave() {
    vgchange -qq -an vg0
    dmsetup remove logged
}
copy() { dd if="$1" of="$2" bs=1M conv=fsync 2>/dev/null; }

without_log
pvcreate -qq -y /dev/mapper/logged
vgcreate -qq -s 512k vg0 /dev/mapper/logged
lvcreate -qq -y -L 4M -n source vg0
lvcreate -qq -y -L 4M -n target vg0
fill /dev/vg0/source 0 4
refresh='blkferry refresh --snapshot-size 100%'
expect 0 $refresh vg0/source /dev/vg0/target
old=$(digest /dev/vg0/target)
dd if=/dev/urandom of=/dev/vg0/source bs=4k seek=100 count=20 oflag=direct conv=notrunc 2>/dev/null
dd if=/dev/urandom of=/dev/vg0/source bs=4k seek=700 count=3 oflag=direct conv=notrunc 2>/dev/null
new=$(digest /dev/vg0/source)
leave
copy ${disk}a ${disk}c

step 'the run, whose writes are logged'
echo "0 $disk_sectors log-writes ${disk}a ${disk}b" | mapped logged
vgchange -qq -ay vg0
expect 0 $refresh --snapshot-target before vg0/source /dev/vg0/target
dmsetup message logged 0 mark ended
sync
leave
ReplayWrites ${disk}b >/tmp/log
entries=$(head -n 1 /tmp/log)
ended=$(grep mark /tmp/log | head -n 1 | cut -d ' ' -f 1)
flushes=$(grep -c flush /tmp/log)
echo "$entries entries, $flushes flushes, ended at $ended"
cat /tmp/log
[ "$ended" -gt 10 ] && [ "$flushes" -gt 0 ] || fail 'that is no log of a refresh'

disks=0 olds=0 snapshots=0 torn=0
# judge COUNT [SEED]: lays out a disk, and shows that nothing is lost on it.
judge() {
    copy ${disk}c ${disk}a
    ReplayWrites ${disk}b ${disk}a "$@"
    without_log
    disks=$((disks + 1))
    if ! vgchange -qq -ay vg0; then
        # The torn sectors are those of LVM's metadata, which it had not flushed yet.
        [ $# = 2 ] || fail "at $*: no volume group"
        torn=$((torn + 1))
        dmsetup remove_all
        return
    fi
    found=$(digest /dev/vg0/target)
    if [ "$found" = "$old" ]; then
        olds=$((olds + 1))
    elif is_volume vg0/before && [ "$(digest /dev/vg0/before)" = "$old" ]; then
        snapshots=$((snapshots + 1))
    else
        fail "at $*: the target is not the old one, and has no snapshot"
    fi
    [ "$1" -lt "$ended" ] || [ "$found" = "$new" ] || fail "at $*: the run had ended with 0"
    status=0
    output=$($refresh vg0/source /dev/vg0/target 2>&1) || status=$?
    [ $status = 0 ] || fail "at $*: the next refresh: $status: $output"
    [ "$(digest /dev/vg0/target)" = "$new" ] || fail "at $*: the next refresh ended with 0, and is wrong: $output"
    leave
}

step 'every power cut'
# Of a long log some: the disk after an entry, and one with torn sectors since the last flush before it.
position=1
while [ $position -le "$entries" ]; do
    judge $position
    judge $position $position
    position=$((position + entries / 24 + 1))
done
judge "$entries"
judge "$ended" 1
echo "$disks disks: $olds old, $snapshots with the old content in the snapshot, $torn without LVM's metadata, 0 lost"
