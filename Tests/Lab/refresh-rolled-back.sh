# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: refresh compares everything on a thin volume or mirror whose snapshot was written and merged since the last run
# seconds: 70
# disks: 100M 100M 60M
modprobe dm-mirror
volume_group vg0 ${disk}a
volume_group vg1 ${disk}b ${disk}c
lvcreate -qq -y --type thin-pool -L 60M -n pool vg0
lvcreate -qq -y -V 16M --thinpool pool -n root vg0
lvcreate -qq -y --type mirror --mirrorlog core -m 1 -L 16M -n mirror vg1
lvcreate -qq -y --type thin-pool -L 40M -n pool vg1
lvcreate -qq -y -V 16M --thinpool pool -n thin vg1
fill /dev/vg0/root 0 16
serve --export vg1:rw

# merged VOLUME OPTION...: a snapshot of it, of these options of lvcreate, is written and merged.
merged() {
    local volume=$1
    shift
    lvcreate -qq -y -s "$@" -n test "vg1/$volume"
    dd if=/dev/urandom of=/dev/vg1/test bs=4k seek=3000 count=1 oflag=direct conv=notrunc 2>/dev/null
    lvconvert -qq -y --merge vg1/test
    becomes is_gone vg1/test
}
# noticed VOLUME TARGET OPTION...: the refresh after the merge compares everything, though the one before used its base.
noticed() {
    local volume=$1 target=$2
    shift 2
    step "$target: lvcreate -s $*"
    expect 0 blkferry refresh vg0/root "$target"
    # The base counts as long as the target is unchanged.
    expect 0 blkferry refresh -v vg0/root "$target"
    says unchanged
    merged "$volume" "$@"
    differ /dev/vg0/root "/dev/vg1/$volume"
    expect 0 blkferry refresh -v vg0/root "$target"
    says 'another program may have written to it'
    says 'falls back to a full comparison'
    same /dev/vg0/root "/dev/vg1/$volume"
}
for volume in thin mirror; do
    for target in vg1/$volume http://127.0.0.1:8080/dev/vg1/$volume; do
        noticed $volume $target -L 4M
        [ $volume != thin ] || noticed $volume $target -kn
    done
done
kill $server
wait $server || fail "the server ended with $?"
