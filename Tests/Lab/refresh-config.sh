# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: refresh --config of two targets, with programs around the snapshot; one fails; the run is killed
# seconds: 60
# disks: 300M 100M
volume_group vg0 ${disk}a
lvcreate -qq -y --type thin-pool -L 200M -n pool vg0
lvcreate -qq -y -V 48M --thinpool pool -n thin vg0
images ${disk}b
mkdir -p /etc/blkferry/replicas /var/lib
log=/tmp/hooks

# hook WORD...: makes the program /tmp/WORD, which logs its call and then runs the rest of the words.
hook() {
    local name=$1
    shift
    # shellcheck disable=SC2016
    printf '#!/bin/sh\necho "$BLKFERRY_HOOK ${BLKFERRY_TARGET##*/} ${BLKFERRY_EXIT_STATUS-}" >>%s\n%s\n' \
        $log "$*" >/tmp/$name
    chmod 755 /tmp/$name
}
# configure: the file of the replica, with these further lines.
configure() {
    {
        echo '# both disks'
        echo 'source = vg0/thin'
        for target in $targets; do echo "target = /images/$target"; done
        for name in before-snapshot after-snapshot after-run on-failure; do
            echo "$name = /tmp/$name"
        done
    } >/etc/blkferry/replicas/web.conf
    for name in after-run on-failure; do hook $name; done
    rm -f $log
}
# logged LINE...: the programs were started in this order.
logged() {
    local line
    for line; do echo "$line"; done >/tmp/expected
    sed 's/ *$//' $log >/tmp/found
    cmp -s /tmp/expected /tmp/found || fail "started: $(cat /tmp/found)"
}
# equal IMAGE
equal() { same /dev/vg0/thin "/images/$1"; }
# snapshots COUNT: blkferry has COUNT snapshots.
snapshots() {
    count=$(lvs --noheadings -o lv_name vg0 | grep -c blkferry || true)
    [ "$count" = "$1" ] || fail "$count snapshots: $(lvs vg0)"
}

step 'a file system that LVM does not freeze, above a loop device, is frozen by the programs'
loop=$(losetup -f --show /dev/vg0/thin)
mkfs.ext4 -q -F "$loop"
mount "$loop" /mnt
echo content >/mnt/file
targets='one.img two.img'
hook before-snapshot fsfreeze --freeze /mnt
hook after-snapshot fsfreeze --unfreeze /mnt
configure
expect 0 blkferry refresh --config web
logged 'before-snapshot one.img' 'after-snapshot one.img' 'after-run one.img 0' \
    'before-snapshot two.img' 'after-snapshot two.img' 'after-run two.img 0'
snapshots 2
expect 0 blkferry replicas
says ' ok'
echo more >/mnt/more
expect 0 blkferry refresh --config web --json
says '"unchanged":'
for target in $targets; do
    expect 0 e2fsck -fn /images/$target
    case $output in *journal*) fail 'the journal has to be replayed' ;; esac
done
umount /mnt
losetup -d "$loop"

step 'a program that fails before the snapshot: 2, and nothing is written'
fill /dev/vg0/thin 4 4
targets=one.img
hook before-snapshot 'echo the database is down; exit 9'
configure
before=$(digest /images/one.img)
expect 2 blkferry refresh --config web
says 'before-snapshot: /tmp/before-snapshot: run: it ended with status 9: the database is down'
logged 'before-snapshot one.img' 'after-snapshot one.img' 'after-run one.img 2' 'on-failure one.img 2'
[ "$before" = "$(digest /images/one.img)" ] || fail 'the target was written'
snapshots 2
expect 1 blkferry replicas
says 'the last run ended with 2: before-snapshot: '

step 'one that fails after it: 2, and no snapshot stays'
hook before-snapshot
hook after-snapshot exit 1
configure
expect 2 blkferry refresh --config web
logged 'before-snapshot one.img' 'after-snapshot one.img' 'after-run one.img 2' 'on-failure one.img 2'
[ "$before" = "$(digest /images/one.img)" ] || fail 'the target was written'
snapshots 2

step 'SIGKILL before the snapshot: the unit starts the rest, once'
# shellcheck disable=SC2016
hook before-snapshot 'kill -KILL $PPID'
hook after-snapshot
configure
expect 137 blkferry refresh --config web
logged 'before-snapshot one.img'
expect 0 blkferry refresh --config web --finish-killed
says 'a run was killed'
expect 0 blkferry refresh --config web --finish-killed
logged 'before-snapshot one.img' 'after-snapshot one.img' 'after-run one.img 137' 'on-failure one.img 137'

step 'without a unit the next run does'
expect 137 blkferry refresh --config web
hook before-snapshot
rm -f $log
expect 0 blkferry refresh --config web
logged 'after-snapshot one.img' 'after-run one.img 137' 'on-failure one.img 137' \
    'before-snapshot one.img' 'after-snapshot one.img' 'after-run one.img 0'
equal one.img

step 'SIGTERM while the first program runs: 130, and the second one is started'
hook before-snapshot sleep 1000
configure
blkferry refresh --config web &
run=$!
while [ ! -e $log ]; do sleep 0.1; done
kill -TERM $run
status=0
wait $run || status=$?
[ $status = 130 ] || fail "status $status"
logged 'before-snapshot one.img' 'after-snapshot one.img' 'after-run one.img 130' 'on-failure one.img 130'
