# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: disks of every bus (virtio, NVMe, SATA, SCSI) as targets, changed in every way: the next run detects it
# when: named
# seconds: 200
# disks: 100M 16M nvme:40M sata:16M scsi:16M
. /counters.sh
for module in nvme ahci virtio_scsi sd_mod; do modprobe $module; done
for name in nvme0n1 sda sdb; do becomes [ -b /dev/$name ]; done
# shellcheck disable=SC2010 # names of the kernel
sata=/dev/$(ls -l /sys/block | grep -o 'ata[0-9].*/sd[a-z]$' | grep -o 'sd[a-z]$')
scsi=/dev/$(ls -l /sys/block | grep -o 'virtio.*/sd[a-z]$' | grep -o 'sd[a-z]$')
source_group
writes="512 4096 buffered held mmap zero replay"

# shellcheck disable=SC2086 # several
{
    cells disk virtio ${disk}b none discard $writes
    is 1
    cells disk sata $sata none $writes
    is 1
    cells disk scsi $scsi none discard $writes
    is 1
    cells disk nvme /dev/nvme0n1 none discard $writes
    is 1
    below=/dev/nvme0n1
    start=1
    path=${below}p1
    partitioned 2048 +16M
    cells partition partition-of-nvme $path none 512 zero below resize replace
    is 1
}
