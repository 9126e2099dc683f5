# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: volumes of an exported group are listed, resized, made and kept over the network where the export allows it
# seconds: 115
volume_group vg0 ${disk}a
volume_group vg1 ${disk}b
lvcreate -qq -y -L 30M -n source vg0
fill /dev/vg0/source 0 30
lvcreate -qq -y --type thin-pool -Zn -c 192k -L 100M -n pool vg1
lvcreate -qq -y -V 4M --thinpool pool -n thin vg1
lvcreate -qq -y -L 8M -n linear vg1
size() { blockdev --getsize64 "$1"; }
missing() { is_gone "$1" || fail "$1 is there"; }
snapshots() { lvs --noheadings -o lv_name -S "lv_name=~$1" vg1 | tr -d ' '; }
here=http://127.0.0.1:8080/dev/vg1

stop() { kill "$server" && wait "$server" || fail "the server ended with $?"; }

step 'a group, read-only: its volumes, and none of their parts'
serve --export 'vg1/*'
expect 0 blkferry list http://127.0.0.1:8080
says /dev/vg1/thin
says /dev/vg1/linear
case $output in *pool*) fail 'a pool is no export' ;; esac
expect 2 blkferry --size-policy resize /dev/vg0/source $here/linear
expect 0 blkferry $here/linear /tmp/copy
same /dev/vg1/linear /tmp/copy
expect 3 blkferry --create /dev/vg0/source http://127.0.0.1:8080/dev/vg0/new
stop

step 'one volume by its name'
serve --export vg1/linear:rw
expect 0 blkferry list http://127.0.0.1:8080
says /dev/vg1/linear
expect 0 blkferry --overwrite /tmp/copy $here/linear
expect 3 blkferry /tmp/copy $here/thin
stop
serve --export vg1/by-name@pool:rw,create
expect 0 blkferry --create /tmp/copy $here/by-name
same /dev/vg1/by-name /tmp/copy
stop
lvremove -qq -f vg1/by-name

step 'writable: resized, kept, but nothing is made, by a server without capabilities'
serve --export vg1:rw
grep -q '^CapPrm:.0000000000000000$' "/proc/$server/status" || fail 'it has capabilities'
expect 2 blkferry --overwrite /dev/vg0/source $here/linear
expect 0 blkferry --overwrite --size-policy resize /dev/vg0/source $here/linear
same /dev/vg0/source /dev/vg1/linear
[ "$(size /dev/vg1/linear)" = 33554432 ] || fail 'it has another size'
lvcreate -qq -y -L 8M -n small vg0
fill /dev/vg0/small 0 8
expect 2 blkferry --size-policy resize /dev/vg0/small $here/linear
says '--shrink'
expect 0 blkferry --size-policy resize --shrink /dev/vg0/small $here/linear
[ "$(size /dev/vg1/linear)" = 8388608 ] || fail 'it has another size'
same /dev/vg0/small /dev/vg1/linear
expect 0 blkferry --size-policy resize /dev/vg0/source $here/thin
same /dev/vg0/source /dev/vg1/thin
fill /dev/vg0/source 3 2
status=0
output=$(blkferry --snapshot-target before /dev/vg0/source $here/thin 2>&1) || status=$?
[ $status != 0 ] || fail 'a snapshot was taken'
says 'does not allow taking a snapshot'
status=0
blkferry --create /dev/vg0/source $here/new || status=$?
[ $status != 0 ] || fail 'it was made'
missing vg1/new
stop

step 'over ssh a snapshot may be taken, whatever the target is called'
cat >/tmp/remote <<'END'
#!/bin/sh
while [ "$1" != -- ]; do shift; done
shift 2
exec sh -c "$*"
END
chmod +x /tmp/remote
round=0
for name in dev/vg1/thin dev/mapper/vg1-thin "LVUUID=$(lvs --noheadings -o lv_uuid vg1/thin | tr -d ' ')"; do
    round=$((round + 1))
    fill /dev/vg0/source 5 1
    expect 0 blkferry --ssh-command /tmp/remote --snapshot-target "remote$round" /dev/vg0/source "ssh://host/$name"
    same /dev/vg0/source /dev/vg1/thin
    [ "$(snapshots "remote$round")" = "remote$round" ] || fail 'there is no snapshot'
    differ "/dev/vg0/source" "/dev/mapper/vg1-remote$round"
done
lvremove -qq -f vg1/remote1 vg1/remote2 vg1/remote3

step 'made where the export allows it'
serve --export vg1:rw,create
expect 0 blkferry --snapshot-target before /dev/vg0/source $here/thin
same /dev/vg0/source /dev/vg1/thin
[ "$(snapshots before)" = before ] || fail 'there is no snapshot'
expect 2 blkferry --snapshot-target before /dev/vg0/source $here/thin
says 'is there already'
for round in 1 2 3; do
    expect 0 blkferry --snapshot-target day --keep 2 /dev/vg0/source $here/thin
    sleep 1.1
done
[ "$(snapshots day- | wc -l)" = 2 ] || fail 'not two are kept'
oldest=$(snapshots day- | head -n 1)
lvchange -qq -ay -K "vg1/$oldest"
exec 4<"/dev/vg1/$oldest"
expect 0 blkferry --snapshot-target day --keep 2 /dev/vg0/source $here/thin
says "$oldest: it could not be removed, and stays"
exec 4<&-
sleep 1.1
expect 0 blkferry --snapshot-target day --keep 2 /dev/vg0/source $here/thin
[ "$(snapshots day- | wc -l)" = 2 ] || fail 'what stayed has not gone now'
newest=$(snapshots day- | tail -n 1)
fill /dev/vg0/source 0 12
begun /tmp/log /dev/vg1/thin blkferry --bwlimit 2M --snapshot-target day --keep 2 /dev/vg0/source $here/thin
stop
serve --export vg1:rw,create
wait $run || fail "after a server restart: $?: $(cat /tmp/log)"
same /dev/vg0/source /dev/vg1/thin
[ "$(snapshots day- | wc -l)" = 2 ] || fail "not two are kept, or one was taken twice: $(lvs vg1)"
[ "$(snapshots day- | head -n 1)" = "$newest" ] || fail 'the one before is gone'
for snapshot in before $(snapshots day-); do lvremove -qq -f "vg1/$snapshot"; done
expect 0 blkferry refresh --snapshot-size 100% vg0/source $here/thin
# LVM resizes an origin only while it is inactive.
lvchange -qq -an vg0/source
lvextend -qq -L 40M vg0/source
lvchange -qq -ay vg0/source
expect 0 blkferry refresh -v --snapshot-size 100% --size-policy resize vg0/source $here/thin
says 'have changed since'
case $output in *'another program may'*) fail 'the output reports a write by another program' ;; esac
[ "$(size /dev/vg1/thin)" = "$(size /dev/vg0/source)" ] || fail 'it has another size'
same /dev/vg0/source /dev/vg1/thin
for snapshot in $(lvs --noheadings -o lv_name vg0 | grep -o 'source.blkferry.*'); do lvremove -qq -f "vg0/$snapshot"; done
expect 0 blkferry --dry-run --create /dev/vg0/source $here/new
missing vg1/new
status=0
blkferry /dev/vg0/source $here/new || status=$?
[ $status = 3 ] || fail "without --create: $status"
expect 0 blkferry --create /dev/vg0/source $here/new@pool
same /dev/vg0/source /dev/vg1/new
[ "$(lvs --noheadings -o pool_lv vg1/new | tr -d ' ')" = pool ] || fail 'it is not in the pool'
fill /dev/vg0/source 9 1
expect 0 blkferry --create /dev/vg0/source $here/new@pool
same /dev/vg0/source /dev/vg1/new
expect 0 blkferry --create /dev/vg0/source $here/plain
same /dev/vg0/source /dev/vg1/plain
step 'made, and then the server is restarted'
fill /dev/vg0/small 0 8
blkferry --bwlimit 1M --create /dev/vg0/small $here/again &
client=$!
becomes is_volume vg1/again
stop
serve --export vg1:rw,create
wait "$client" || fail "after a server restart: $?"
same /dev/vg0/small /dev/vg1/again

step 'what cannot be made'
expect 3 blkferry --create /dev/vg0/small $here/other@nopool
missing vg1/other
size=$(blockdev --getsz /dev/vg0/small)
echo "0 $size error" | mapped bad
expect 3 blkferry --create /dev/mapper/bad $here/failed
becomes is_gone vg1/failed
truncate -s 1G /tmp/large
expect 2 blkferry --create /tmp/large $here/more
says 'bytes that are free'
stop
