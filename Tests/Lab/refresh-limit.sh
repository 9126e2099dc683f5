# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: refresh --max-change refuses a target that differs more and keeps its base; --wait waits for a mounted volume
# seconds: 45
# disks: 200M 200M
volume_group vg0 ${disk}a
volume_group vg1 ${disk}b
lvcreate -qq -y --type thin-pool -L 80M -n pool vg0
lvcreate -qq -y -V 32M --thinpool pool -n thin vg0
lvcreate -qq -y -L 32M -n linear vg0
for source in thin linear; do
    fill "/dev/vg0/$source" 0 32
    lvcreate -qq -y -L 32M -n "$source" vg1
done
# bases SOURCE: the snapshots that refresh keeps of it.
bases() { lvs --noheadings -o lv_name vg0 | tr -d ' ' | grep "^$1\.blkferry" || true; }
# refresh SOURCE OPTION...: onto the volume of the same name.
refresh() {
    local source=$1
    shift
    case $source in
        linear) blkferry refresh -v --snapshot-size 24M "$@" vg0/linear "$target" ;;
        *) blkferry refresh -v "$@" "vg0/$source" "$target" ;;
    esac
}
# refused SOURCE OPTION...: because of the limit; nothing is written, and the base stays.
refused() {
    local source=$1 base before
    shift
    base=$(bases "$source")
    before=$(digest "/dev/vg1/$source")
    expect 2 refresh "$source" "$@"
    says "$target: refused: "
    says '--max-change allows 10 %'
    [ "$(digest "/dev/vg1/$source")" = "$before" ] || fail 'it was written to'
    [ "$(bases "$source")" = "$base" ] || fail "another base: $(bases "$source"), and not $base"
}
# limited SOURCE: runs with a limit; those below the limit use the map.
limited() {
    step "$1 onto $target"
    expect 0 refresh "$1"
    fill "/dev/vg0/$1" 4 1
    expect 0 refresh "$1" --max-change 10
    says 'have changed since'
    same "/dev/vg0/$1" "/dev/vg1/$1"
    fill "/dev/vg0/$1" 8 8
    refused "$1" --max-change 10
    refused "$1" --max-change 10 --json
    says '"cause":"max-change"'
    # A refused run has written nothing, so the base still proves what the target holds.
    expect 0 refresh "$1" --max-change 30
    says 'have changed since'
    same "/dev/vg0/$1" "/dev/vg1/$1"
    expect 0 refresh "$1" --max-change 0
    says unchanged
    # Another program has written: the run compares everything, and the limit counts for all of it.
    fill "/dev/vg1/$1" 8 8
    refused "$1" --max-change 10
    expect 0 refresh "$1" --max-change 30
    same "/dev/vg0/$1" "/dev/vg1/$1"
}

for source in thin linear; do
    target=/dev/vg1/$source
    limited $source
done
serve --export vg1:rw
target=http://127.0.0.1:8080/dev/vg1/thin
limited thin

step 'a run waits for a mounted volume, and takes no snapshot and resizes nothing before'
lvcreate -qq -y -L 16M -n busy vg1
# waited LOG COMMAND...: a run that waits until the volume is unmounted.
waited() {
    local log=$1 status=0
    shift
    mkfs.ext4 -q -F /dev/vg1/busy
    mount /dev/vg1/busy /mnt
    old=$(blockdev --getsize64 /dev/vg1/busy)
    # Without this the loop could read the log of the run before until the program has started.
    rm -f "$log"
    "$@" >"$log" 2>&1 &
    run=$!
    while ! grep -qs 'waiting for up to' "$log"; do
        kill -0 $run || fail "it did not wait: $(cat "$log")"
        sleep 0.1
    done
    ! lvs vg1/kept >/dev/null 2>&1 || fail 'a snapshot was taken too early'
    [ "$(blockdev --getsize64 /dev/vg1/busy)" = "$old" ] || fail 'it was resized too early'
    umount /mnt
    wait $run || status=$?
    output=$(cat "$log")
    echo "$output"
    [ $status = 0 ] || fail "status $status"
    says 'it is mounted'
    same /dev/vg0/linear /dev/vg1/busy
}
waited /tmp/log blkferry --wait 5m --overwrite --size-policy resize vg0/linear /dev/vg1/busy
fill /dev/vg0/linear 0 4
waited /tmp/log blkferry --wait 5m --overwrite --snapshot-target kept vg0/linear vg1/busy
[ "$(lvs --noheadings -o origin vg1/kept | tr -d ' ')" = busy ] || fail 'there is no snapshot'
differ /dev/vg1/kept /dev/vg1/busy
lvremove -qq -f vg1/kept
fill /dev/vg0/linear 0 4
waited /tmp/log blkferry --wait 5m --overwrite vg0/linear http://127.0.0.1:8080/dev/vg1/busy
for source in $(bases linear); do lvremove -qq -f "vg0/$source"; done
fill /dev/vg0/linear 0 4
waited /tmp/log blkferry refresh --wait 5m --overwrite --snapshot-size 24M vg0/linear vg1/busy

step 'and no longer than --wait allows'
mkfs.ext4 -q -F /dev/vg1/busy
mount /dev/vg1/busy /mnt
expect 2 blkferry --wait 1s --overwrite vg0/linear vg1/busy
says 'refused: it is mounted on /mnt'
expect 2 blkferry refresh --wait 1s --overwrite --snapshot-size 24M vg0/linear vg1/busy
says 'refused: it is mounted on /mnt'
umount /mnt
kill $server
wait $server || fail "the server ended with $?"
