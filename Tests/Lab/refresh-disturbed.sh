# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: refresh detects other writers of its target; leftovers of killed runs, and open snapshots, do not disturb it
# seconds: 60
# disks: 200M 200M 32M
volume_group vg0 ${disk}a
volume_group vg1 ${disk}b
# Each write takes 50 ms, so that there is time to disturb the run.
echo 0 65536 delay ${disk}c 0 0 ${disk}c 0 50 | mapped slow
lvcreate -qq -y --type thin-pool -L 120M -n pool vg0
lvcreate -qq -y -V 32M --thinpool pool -n thin vg0
lvcreate -qq -y -L 32M -n replica vg1
fill /dev/vg0/thin 0 32

refresh='blkferry refresh vg0/thin'
# names: the snapshots that blkferry has made.
names() { lvs --noheadings -o lv_name vg0 | tr -d ' ' | grep blkferry || true; }
# held: the root of the metadata snapshot of the pool.
held() { dmsetup status vg0-pool-tpool | cut -d ' ' -f 7; }
# ends STATUS LOG: the run ends with STATUS; its output is in $output.
ends() {
    status=0
    wait $run || status=$?
    output=$(cat "$2")
    echo "$output"
    [ $status = "$1" ] || fail "status $status, expected $1"
}
# scribble TARGET: writes to an unchanged part of it.
scribble() {
    dd if=/dev/urandom of="$1" bs=4k seek=1000 count=3 oflag=direct conv=notrunc 2>/dev/null
}

# A thin_delta that writes to /tmp/started when it begins, and waits for /tmp/go.
mkdir /tmp/slow
printf '#!/bin/dash\necho $$ >/tmp/started\nwhile [ ! -e /tmp/go ]; do sleep 0.1; done\nexec %s "$@"\n' \
    "$(command -v thin_delta)" >/tmp/slow/thin_delta
chmod +x /tmp/slow/thin_delta
# mapping TARGET: a refresh in the background, in $run, that waits for its map.
mapping() {
    rm -f /tmp/started /tmp/go
    PATH=/tmp/slow:$PATH $refresh "$1" >/tmp/log 2>&1 &
    run=$!
    while [ ! -s /tmp/started ]; do kill -0 $run || fail "it was over before the map: $(cat /tmp/log)"; done
}

step 'another program writes to the target during the run'
expect 0 $refresh vg1/replica
fill /dev/vg0/thin 8 1
mapping vg1/replica
scribble /dev/vg1/replica
touch /tmp/go
ends 1 /tmp/log
says 'another program may have written to it during the run'
says 'another program wrote to it during the run'
expect 0 $refresh vg1/replica
same /dev/vg0/thin /dev/vg1/replica
expect 0 $refresh vg1/replica
says unchanged

step 'and while the server is restarted'
serve --export vg1:rw
url=http://127.0.0.1:8080/dev/vg1/replica
expect 0 $refresh $url
fill /dev/vg0/thin 8 16
begun /tmp/log /dev/vg1/replica $refresh -v -c 1 --bwlimit 2M $url
kill $server
wait $server || true
scribble /dev/vg1/replica
serve --export vg1:rw
ends 4 /tmp/log
says 'another program may have written to it since the session ended'
expect 0 $refresh $url
says 'full comparison'
same /dev/vg0/thin /dev/vg1/replica
kill $server
wait $server || fail "the server ended with $?"

step 'a device of the mapper gets other blocks'
lvcreate -qq -y -L 32M -n one vg1
lvcreate -qq -y -L 32M -n two vg1
echo 0 65536 linear /dev/vg1/one 0 | mapped other
expect 0 $refresh /dev/mapper/other
fill /dev/vg1/two 0 32
echo 0 65536 linear /dev/vg1/two 0 | dmsetup load other
dmsetup suspend other
dmsetup resume --noudevrules --noudevsync other
expect 0 $refresh /dev/mapper/other
says 'full comparison'
same /dev/vg0/thin /dev/mapper/other

step 'a renamed snapshot belongs to the user'
for name in $(names); do lvremove -qq -f "vg0/$name"; done
expect 0 $refresh vg1/replica
base=$(names)
lvrename -qq vg0 "$base" thin.blkferry.mine
expect 0 $refresh vg1/replica
lvs vg0/thin.blkferry.mine || fail 'it was removed'
lvremove -qq -f vg0/thin.blkferry.mine

step 'an old base stays while another program has it open'
base=$(names)
exec 9<"/dev/vg0/$base"
fill /dev/vg0/thin 3 1
expect 0 $refresh vg1/replica
says "$base: remove the snapshot"
same /dev/vg0/thin /dev/vg1/replica
[ "$(names | wc -l)" = 2 ] || fail "not two: $(names)"
exec 9<&-
expect 0 $refresh -v vg1/replica
says 'have changed since'
[ "$(names | wc -l)" = 1 ] || fail "not one: $(names)"

step 'so does the snapshot of a killed run'
bases=$(names)
fill /dev/vg0/thin 8 20
begun /tmp/log /dev/mapper/slow $refresh -c 1 /dev/mapper/slow
kill -KILL $run
wait $run || true
left=$(names | grep -vF "$bases")
exec 9<"/dev/vg0/$left"
expect 0 blkferry sync -q --snapshot vg0/thin /dev/mapper/slow
says "$left: remove the snapshot"
same /dev/vg0/thin /dev/mapper/slow
exec 9<&-
expect 0 $refresh vg1/replica
[ "$(names)" != "$bases" ] && ! names | grep -F "$left" || fail "the leftover is still there: $(names)"

step 'the metadata snapshot of a killed run goes with the next run of any kind'
mapping vg1/replica
kill -KILL $run $(cat /tmp/started)
wait $run || true
[ "$(held)" != - ] || fail 'no metadata snapshot was left'
expect 0 blkferry sync -v --snapshot vg0/thin vg1/replica
says 'has left its metadata snapshot'
[ "$(held)" = - ] || fail 'it is still held'
