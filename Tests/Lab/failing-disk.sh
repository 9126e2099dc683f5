# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
# shellcheck shell=dash
# shows: a rescue with a map: bad sectors, sectors that are repaired, a place that does not answer
# seconds: 65
modprobe dm-delay
fill ${disk}a 0 64
truncate -s 64M /tmp/target
mapped bad <<EOF
0 20480 linear ${disk}a 0
20480 8 error
20488 40952 linear ${disk}a 20488
61440 3 error
61443 69629 linear ${disk}a 61443
EOF
blockdev --setra 0 /dev/mapper/bad

step 'bad sectors are left out, and the rest is read'
expect 6 blkferry --map /tmp/map --json /dev/mapper/bad /tmp/target
says '"map":{"bad":5632,"file":"/tmp/map","finished":67103232,"missing":0}'
grep -q '^0x00A00000  0x00001000  -$' /tmp/map
grep -q '^0x01E00000  0x00000600  -$' /tmp/map

step 'another run tries only these'
expect 6 blkferry --map /tmp/map --json /dev/mapper/bad /tmp/target
says '"unchanged":67103232'

step 'a map of another target is refused'
truncate -s 64M /tmp/other
expect 2 blkferry --map /tmp/map /dev/mapper/bad /tmp/other
says 'it is the map of the target'

step 'one sector is repaired'
dmsetup suspend bad
dmsetup load bad <<EOF
0 61440 linear ${disk}a 0
61440 3 error
61443 69629 linear ${disk}a 61443
EOF
dmsetup resume bad
expect 6 blkferry --map /tmp/map --json /dev/mapper/bad /tmp/target
says '"map":{"bad":1536,'
head -c 31457280 ${disk}a | cmp -n 31457280 - /tmp/target

step 'a place that does not answer is left, and the program ends'
rm /tmp/map /tmp/target
mapped slow <<EOF
0 40960 linear ${disk}a 0
40960 8 delay ${disk}a 40960 40000
40968 90104 linear ${disk}a 40968
EOF
blockdev --setra 0 /dev/mapper/slow
expect 6 timeout 30 blkferry --map /tmp/map --read-timeout 1s --json /dev/mapper/slow /tmp/target
says '"bad":0'
grep -q '  ?$' /tmp/map
head -c 20971520 ${disk}a | cmp -n 20971520 - /tmp/target
grep -qx blkferry-reader /proc/[0-9]*/comm

step 'the next run reads it, with time'
expect 0 blkferry --map /tmp/map /dev/mapper/slow /tmp/target
head -c 67108864 ${disk}a | cmp -n 67108864 - /tmp/target
