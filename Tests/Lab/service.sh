# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: the services of systemd: a client starts one, and writes logical volumes; one shows a token
# host: /lib/systemd/systemd systemctl
# seconds: 50
start_udev
volume_group vg0 ${disk}a ${disk}b
lvcreate -qq -y -L 24M -n source vg0
lvcreate -qq -y -L 24M -n target vg0
fill /dev/vg0/source 0 24

step 'systemd, as the first process of its own processes'
mkdir -p /etc/blkferry
# There is no journal here, and /usr is the root directory.
drop_in blkferry-serve.service '[Service]' StandardError=append:/run/log ProtectSystem=no
drop_in blkferry-storage-target.service '[Service]' StandardError=append:/run/log ProtectSystem=no \
    StandardOutput=file:/run/console
start_systemd sockets remote-fs storage-target-mode

step 'started by a client'
echo vg0:rw,create >/etc/blkferry/exports
BLKFERRY_TOKEN=$(blkferry token)
export BLKFERRY_TOKEN
echo "me $BLKFERRY_TOKEN" >/etc/blkferry/tokens
chmod 600 /etc/blkferry/tokens
systemctl start blkferry-serve.socket
there=http://127.0.0.1:8080
status() { systemctl show -P StatusText blkferry-serve.service; }
expect 3 systemctl is-active blkferry-serve.service
expect 0 blkferry list $there
says /dev/vg0/target
# The server may answer the client before systemd has read that it is ready.
becomes systemctl --quiet is-active blkferry-serve.service
expect 0 status
says '127.0.0.1:8080: exports: 1'

step 'written, made, grown, kept'
expect 0 blkferry --verify /dev/vg0/source $there/dev/vg0/target
same /dev/vg0/source /dev/vg0/target
expect 0 blkferry --create /dev/vg0/source $there/dev/vg0/new
same /dev/vg0/source /dev/vg0/new
fill /dev/vg0/source 4 4
expect 0 blkferry --snapshot-target day /dev/vg0/source $there/dev/vg0/target
same /dev/vg0/source /dev/vg0/target
is_volume vg0/day || fail 'there is no snapshot'
lvextend -qq -L 32M vg0/source
expect 0 blkferry --size-policy resize /dev/vg0/source $there/dev/vg0/new
same /dev/vg0/source /dev/vg0/new

step 'reloaded, stopped'
echo vg0/target >/etc/blkferry/exports
systemctl reload blkferry-serve.service
reloaded() { grep -q 'exports=1 .*reloaded' /run/log; }
becomes reloaded
expect 0 blkferry list $there
says /dev/vg0/target
case $output in *vg0/new*) fail 'vg0/new is no longer exported' ;; esac
systemctl stop blkferry-serve.socket blkferry-serve.service
expect 0 systemctl show -P Result,ExecMainStatus blkferry-serve.service
says success

step 'storage-target-mode.target offers the disks, read-only, with a token that the console shows'
expect 0 systemctl enable blkferry-storage-target.service
expect 0 systemctl start storage-target-mode.target
shown() { sed -n "s,.*$1.*,\\1,p" /run/console; }
becomes systemctl is-active blkferry-storage-target.service
BLKFERRY_TOKEN=$(shown 'BLKFERRY_TOKEN=\([^ ]*\)')
pin=$(shown '\(sha256//[^ ]*\)')
there=https://127.0.0.1:8080
expect 0 blkferry list --pinned-pubkey "$pin" $there
for device in ${disk}a ${disk}b /dev/mapper/vg0-source; do says " $device "; done
case $output in *' rw'*) fail 'a device is not read-only' ;; esac
expect 0 blkferry --pinned-pubkey "$pin" $there/dev/vg0/target /dev/vg0/new --overwrite --size-policy prefix
same /dev/vg0/target /dev/vg0/new
BLKFERRY_TOKEN=$(blkferry token)
expect 5 blkferry list --pinned-pubkey "$pin" $there
systemctl stop blkferry-storage-target.service
