# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""What a power cut may leave of logged changes.

What was flushed is there. Of the rest anything may be there:

- of a write or of zeros, any sectors of 512 bytes;
- of the sizes that a file had, any in between, because a file system orders them; what a longer
  file has that was not written reads as zeros;
- of the names of a directory, as many of the changes as came first, for the same reason. Only a
  flush of the directory makes them durable, not one of the file.
"""

from .fuse import resize, write

SECTOR = 512
FLUSHES = {"flush", "flush names"}


class Cut:
    """A disk that a power cut leaves, and what was known to the user then."""

    def __init__(self, disk, position, kind, statuses):
        self.disk = disk
        self.position = position
        self.kind = kind  # "prefix" or "subset"
        self.statuses = statuses  # of the commands that had ended

    def key(self):
        """Equal for equal disks, and, but for one chance in 2^64, for no others."""
        return (self.statuses, *(
            (directory, name, hash(bytes(self.disk.files[number])))
            for directory, names in self.disk.names.items()
            for name, number in sorted(names.items())))

    def __str__(self):
        return f"{self.kind} at {self.position}"


def apply(disk, change):
    """Applies one change of a log completely."""
    kind, subject, *rest = change
    if kind == "write":
        write(disk.files[subject], rest[0], rest[1])
    elif kind == "zero":
        content = disk.files[subject]
        end = min(len(content), rest[0] + rest[1])
        if rest[0] < end:
            content[rest[0]:end] = bytes(end - rest[0])
    elif kind == "size":
        resize(disk.files[subject], rest[0])
    elif kind == "name":
        name, number = rest
        if number is None:
            disk.names[subject].pop(name, None)
        else:
            disk.names[subject][name] = number
            disk.files.setdefault(number, bytearray())
    elif kind == "rename":
        old, new, number = rest
        disk.names[subject].pop(old, None)
        disk.names[subject][new] = number


class History:
    """A log since a disk whose content was durable."""

    def __init__(self, disk, log):
        self.start = disk
        self.log = log

    def prefixes(self):
        """The disk after each change, all before it being there."""
        disk = self.start.copy()
        statuses = []
        yield Cut(disk.copy(), 0, "prefix", ())
        for position, change in enumerate(self.log, 1):
            if change[0] == "ended":
                statuses.append(change[1])
            elif change[0] in FLUSHES:
                continue
            else:
                apply(disk, change)
            yield Cut(disk.copy(), position, "prefix", tuple(statuses))

    def intervals(self):
        """The ranges of positions between flushes."""
        edges = [0, *(index for index, change in enumerate(self.log, 1) if change[0] in FLUSHES),
                 len(self.log)]
        return [(low, high) for low, high in zip(edges, edges[1:])]

    def subsets(self, count, random):
        """`count` random cuts in each interval."""
        durable = self.start.copy()
        pending = {}  # of a file or a directory
        statuses = []
        position = 0
        for low, high in self.intervals():
            for wanted in sorted(random.randint(low, high) for _ in range(count)):
                position = self.advance(position, wanted, durable, pending, statuses)
                yield Cut(torn(durable, pending, random), position, "subset", tuple(statuses))
            position = self.advance(position, high, durable, pending, statuses)

    def advance(self, position, wanted, durable, pending, statuses):
        for change in self.log[position:wanted]:
            kind, subject = change[:2]
            if kind == "ended":
                statuses.append(subject)
            elif kind in FLUSHES:
                for done in pending.pop(subject, []):
                    apply(durable, done)
            else:
                if kind == "name" and change[3] is not None:
                    durable.files.setdefault(change[3], bytearray())
                pending.setdefault(subject, []).append(change)
        return wanted


def torn(durable, pending, random):
    """The durable disk with any part of the changes that are pending."""
    disk = durable.copy()
    for subject, changes in pending.items():
        if isinstance(subject, str):
            for change in changes[:random.randint(0, len(changes))]:
                apply(disk, change)
        else:
            tear(disk.files[subject], changes, random)
    return disk


def tear(content, changes, random):
    """Applies any part of the changes of one file."""
    # How likely a write is to be there, and how likely to be there in part.
    whole, part = random.choice([(0.5, 0.3), (0.8, 0.2), (0.1, 0.1), (0, 1), (0.9, 0), (0.1, 0)])
    length = len(content)
    sizes = 0
    lengths = []
    for change in changes:
        end = change[2] if change[0] == "size" else change[2] + len(change[3]) \
            if change[0] == "write" else 0
        changes_size = change[0] == "size" or end > length
        if changes_size:
            length = end
            sizes += 1
        lengths.append(changes_size)
    sizes = random.randint(0, sizes)
    for change, changes_size in zip(changes, lengths):
        if changes_size and sizes > 0:
            sizes -= 1
            end = change[2] if change[0] == "size" else change[2] + len(change[3])
            if change[0] == "size" or end > len(content):
                resize(content, end)
        if change[0] == "size":
            continue
        _, _, offset, data = change
        if change[0] == "zero":
            data = bytes(data)
        draw = random.random()
        if draw < whole:
            put(content, offset, data)
        elif draw < whole + part:
            share = random.random()
            place = 0
            while place < len(data):
                end = min(len(data), ((offset + place) // SECTOR + 1) * SECTOR - offset)
                if random.random() < share:
                    put(content, offset + place, data[place:end])
                place = end


def put(content, offset, data):
    """Writes what lies within the file."""
    data = data[:max(0, len(content) - offset)]
    content[offset:offset + len(data)] = data
