# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: an append-only token can take snapshots of its volumes over the network, but not remove or write one
# seconds: 45
# disks: 60M 200M
volume_group vg0 ${disk}a
volume_group vg1 ${disk}b
lvcreate -qq -y -L 16M -n source vg0
lvcreate -qq -y --type thin-pool -L 64M -n pool vg1
lvcreate -qq -y -V 16M --thinpool pool -n thin vg1
lvcreate -qq -y -L 16M -n linear vg1
fill /dev/vg0/source 0 16
all=$(blkferry token)
own=$(blkferry token)
(umask 077 && printf 'all %s\nown %s append-only\n' "$all" "$own" >/tmp/tokens)
export BLKFERRY_TOKEN="$all"
serve --token-file /tmp/tokens --export vg1:rw,create
here=http://127.0.0.1:8080/dev/vg1

# volumes: the volumes of vg1.
volumes() { lvs --noheadings -o lv_name vg1 | tr -d ' ' | sort | tr '\n' ' '; }
# refused TEXT COMMAND...: it ends with 2 and the reason, and makes and removes no volume.
refused() {
    local text=$1 before
    shift
    before=$(volumes)
    expect 2 "$@"
    says 'the token is append-only'
    says "$text"
    [ "$(volumes)" = "$before" ] || fail "there were $before, now $(volumes)"
}

for volume in thin linear; do
    step "$volume: a snapshot is taken"
    export BLKFERRY_TOKEN="$all"
    expect 0 blkferry /dev/vg0/source $here/$volume
    before=$(digest /dev/vg0/source)
    fill /dev/vg0/source 3 1
    export BLKFERRY_TOKEN="$own"
    expect 0 blkferry --snapshot-target kept-$volume /dev/vg0/source $here/$volume
    same /dev/vg0/source /dev/vg1/$volume
    [ $volume = linear ] || lvchange -qq -ay -K vg1/kept-$volume
    [ "$(digest /dev/vg1/kept-$volume)" = "$before" ] || fail 'the snapshot is not the volume as it was'

    step "$volume: a snapshot is not written, and none is removed"
    refused 'a snapshot is part of the history' blkferry --overwrite /dev/vg0/source $here/kept-$volume
    refused '--keep removes older snapshots' \
        blkferry --snapshot-target day --keep 1 /dev/vg0/source $here/$volume
    [ "$(digest /dev/vg1/kept-$volume)" = "$before" ] || fail 'the snapshot was written to'

    step "$volume: a token without the word may write it"
    export BLKFERRY_TOKEN="$all"
    expect 0 blkferry --overwrite /dev/vg0/source $here/kept-$volume
    same /dev/vg0/source /dev/vg1/kept-$volume
done
kill $server
wait $server || fail "the server ended with $?"
