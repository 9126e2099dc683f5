# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""Directories in memory behind FUSE, which log every change and every flush in their order.

Nothing is cached: each file is opened with FOPEN_DIRECT_IO, and names and sizes are asked for each
time. So the content can be replaced while nobody has a file open, and the next program sees it. A
loop device on such a file passes on its writes and flushes the same way.

The formats are those of the kernel's include/uapi/linux/fuse.h, version 7.31, and for STATX 7.39.
"""

import ctypes
import errno
import os
import select
import stat
import struct
import threading
from dataclasses import dataclass, field

PAGE = 4096
LONGEST_TRANSFER = 1 << 20
FOPEN_DIRECT_IO = 1
FATTR_SIZE = 1 << 3
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16  # linux/falloc.h
SEEK_DATA, SEEK_HOLE = 3, 4
MS_NOSUID, MS_NODEV, MNT_DETACH = 2, 4, 2
STATX_BASIC_STATS, STATX_BTIME = 0x7FF, 0x800
BIRTH = 1_700_000_000  # seconds since 1970; a file's number is added

(LOOKUP, FORGET, GETATTR, SETATTR, MKNOD, UNLINK, RENAME, LINK, OPEN, READ, WRITE, STATFS, RELEASE,
 FSYNC, FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR, FSYNCDIR, ACCESS, CREATE, INTERRUPT, DESTROY,
 BATCH_FORGET, FALLOCATE, RENAME2, LSEEK, STATX) = (
    1, 2, 3, 4, 8, 10, 12, 13, 14, 15, 16, 17, 18, 20, 25, 26, 27, 28, 29, 30, 34, 35, 36, 38, 42,
    43, 45, 46, 52)
UNANSWERED = {FORGET, BATCH_FORGET, INTERRUPT}
ROOT = 1

LIBC = ctypes.CDLL(None, use_errno=True)


class Failure(Exception):
    """An error that ends the tool with one line."""


@dataclass
class Disk:
    """What is in all directories: the number of each name's file, and the bytes of each file."""

    names: dict = field(default_factory=dict)  # directory -> {name: number}
    files: dict = field(default_factory=dict)  # number -> bytearray

    def copy(self):
        return Disk({key: dict(names) for key, names in self.names.items()},
                    {number: bytearray(content) for number, content in self.files.items()})

    def content(self, directory, name):
        """The bytes of a file; None if there is none of this name."""
        number = self.names[directory].get(name)
        return None if number is None else bytes(self.files[number])


class Refused(Exception):
    def __init__(self, code):
        self.code = code


class FileSystem:
    """The directories, mounted at PLACE/NAME until the end of the `with`.

    `log` has the changes since `record` as tuples: ("write", file, offset, bytes), ("zero", file,
    offset, length), ("size", file, size), ("flush", file), ("name", directory, name, file or
    None), ("flush names", directory), and ("ended", status), which the caller appends.
    """

    def __init__(self, place, directories):
        self.disk = Disk({name: {} for name in directories})
        self.log = []
        self.next = ROOT + 1
        self.lock = threading.Lock()
        self.poll = select.poll()
        self.mounts = {}  # descriptor -> directory
        self.paths = {}
        self.buffer = bytearray(LONGEST_TRANSFER + 2 * PAGE)
        for name in directories:
            self.mount(place / name, name)
        self.thread = threading.Thread(target=self.serve, daemon=True)

    def mount(self, path, name):
        path.mkdir()
        descriptor = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
        options = f"fd={descriptor},rootmode=40700,user_id=0,group_id=0,allow_other"
        if LIBC.mount(b"powercut", os.fsencode(path), b"fuse", MS_NOSUID | MS_NODEV,
                      options.encode()) != 0:
            raise Failure(f"{path}: mount: {os.strerror(ctypes.get_errno())}")
        self.mounts[descriptor] = name
        self.paths[name] = path
        self.poll.register(descriptor, select.POLLIN)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        for path in self.paths.values():
            LIBC.umount2(os.fsencode(path), MNT_DETACH)
        self.thread.join()

    def record(self):
        """Begins a new log."""
        with self.lock:
            self.log = []

    def load(self, disk):
        """Replaces the content; no file may be open but that of a loop device."""
        with self.lock:
            self.disk = disk.copy()
            self.log = []
            self.next = max([self.next, *(number + 1 for number in disk.files)])

    def snapshot(self):
        with self.lock:
            return self.disk.copy()

    # The server's thread

    def serve(self):
        while self.mounts:
            for descriptor, _ in self.poll.poll():
                try:
                    count = os.readv(descriptor, [self.buffer])
                except OSError as error:
                    if error.errno == errno.ENODEV:
                        self.poll.unregister(descriptor)
                        del self.mounts[descriptor]
                        os.close(descriptor)
                    elif error.errno not in (errno.EAGAIN, errno.EINTR, errno.ENOENT):
                        raise
                    continue
                self.answer(descriptor, memoryview(self.buffer)[:count])

    def answer(self, descriptor, request):
        _, opcode, unique, node = struct.unpack_from("<IIQQ", request)
        if opcode in UNANSWERED:
            return
        code, reply = 0, b""
        with self.lock:
            try:
                reply = self.handle(self.mounts[descriptor], opcode, node, request[40:])
            except Refused as refusal:
                code = refusal.code
            except KeyError:
                # A file that was removed while a server had it open.
                code = errno.ESTALE
        try:
            os.writev(descriptor,
                      [struct.pack("<IiQ", 16 + len(reply), -code, unique), reply])
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV):
                raise

    def handle(self, directory, opcode, node, body):
        names, files = self.disk.names[directory], self.disk.files
        if opcode == INIT:
            # ASYNC_READ, BIG_WRITES, ASYNC_DIO, MAX_PAGES
            return struct.pack("<IIIIHHIIHHI28x", 7, 31, 0, 1 | 1 << 5 | 1 << 15 | 1 << 22, 64, 64,
                               LONGEST_TRANSFER, 1, LONGEST_TRANSFER // PAGE, 0, 0)
        if opcode == LOOKUP:
            return self.entry(self.number(names, name_of(body)))
        if opcode == GETATTR:
            return struct.pack("<QII", 0, 0, 0) + self.attributes(node)
        if opcode == SETATTR:
            valid, _, _, size = struct.unpack_from("<IIQQ", body)
            if valid & FATTR_SIZE:
                resize(files[node], size)
                self.log.append(("size", node, size))
            return struct.pack("<QII", 0, 0, 0) + self.attributes(node)
        if opcode in (OPEN, OPENDIR):
            return struct.pack("<QII", 0, FOPEN_DIRECT_IO if opcode == OPEN else 0, 0)
        if opcode == CREATE:
            name = name_of(body[16:])
            if name not in names:
                names[name] = self.next
                files[self.next] = bytearray()
                self.log.append(("name", directory, name, self.next))
                self.next += 1
            return self.entry(names[name]) + struct.pack("<QII", 0, FOPEN_DIRECT_IO, 0)
        if opcode == READ:
            _, offset, size = struct.unpack_from("<QQI", body)
            with memoryview(files[node]) as content:
                return bytes(content[offset:offset + size])
        if opcode == WRITE:
            _, offset, size = struct.unpack_from("<QQI", body)
            data = bytes(body[40:40 + size])
            write(files[node], offset, data)
            self.log.append(("write", node, offset, data))
            return struct.pack("<II", size, 0)
        if opcode == FALLOCATE:
            return self.allocate(node, *struct.unpack_from("<QQQI", body)[1:])
        if opcode == LSEEK:
            _, offset, whence = struct.unpack_from("<QQI", body)
            return struct.pack("<Q", seek(files[node], offset, whence))
        if opcode in (FSYNC, FSYNCDIR):
            self.log.append(("flush", node) if opcode == FSYNC else ("flush names", directory))
            return b""
        if opcode == UNLINK:
            self.rename(directory, None, name_of(body))
            return b""
        if opcode in (RENAME, RENAME2):
            old, new = bytes(body[8 if opcode == RENAME else 16:]).split(b"\0")[:2]
            self.rename(directory, new.decode(), old.decode())
            return b""
        if opcode == LINK:
            number = struct.unpack_from("<Q", body)[0]
            name = name_of(body[8:])
            if name in names:
                raise Refused(errno.EEXIST)
            names[name] = number
            self.log.append(("name", directory, name, number))
            return self.entry(number)
        if opcode == READDIR:
            return listing(names, *struct.unpack_from("<QQI", body)[1:])
        if opcode == STATFS:
            return struct.pack("<QQQQQIIII24x", 1 << 20, 1 << 19, 1 << 19, 1 << 20, 1 << 19, PAGE,
                               255, PAGE, 0)
        if opcode == STATX:
            return self.statx(node)
        if opcode in (RELEASE, RELEASEDIR, FLUSH, ACCESS, DESTROY):
            return b""
        raise Refused(errno.ENOSYS)

    def number(self, names, name):
        if name not in names:
            raise Refused(errno.ENOENT)
        return names[name]

    def rename(self, directory, new, old):
        names = self.disk.names[directory]
        number = self.number(names, old)
        del names[old]
        if new is not None:
            names[new] = number
            # One operation: after a power cut a file has one of both names.
            self.log.append(("rename", directory, old, new, number))
        else:
            self.log.append(("name", directory, old, None))

    def allocate(self, node, offset, length, mode):
        content = self.disk.files[node]
        end = offset + length
        if mode & (PUNCH_HOLE | ZERO_RANGE):
            inside = min(end, len(content)) - offset
            if inside > 0:
                content[offset:offset + inside] = bytes(inside)
                self.log.append(("zero", node, offset, inside))
        if not mode & KEEP_SIZE and end > len(content):
            resize(content, end)
            self.log.append(("size", node, end))
        return b""

    def mode_and_size(self, node):
        if node == ROOT:
            return stat.S_IFDIR | 0o700, 0
        return stat.S_IFREG | 0o600, len(self.disk.files[node])

    def statx(self, node):
        """With the birth time, by which an image is known after a restart."""
        mode, size = self.mode_and_size(node)
        times = [(0, 0), (BIRTH + node, 0), (0, 0), (0, 0)]
        head = struct.pack("<QII16x", 0, 0, 0)
        status = struct.pack("<IIQIIIHHQQQQ", STATX_BASIC_STATS | STATX_BTIME, PAGE, 0, 1, 0, 0,
                             mode, 0, node, size, -(-size // 512), 0)
        status += b"".join(struct.pack("<qIi", *time, 0) for time in times)
        return head + status + bytes(128)

    def attributes(self, node):
        mode, size = self.mode_and_size(node)
        return struct.pack("<QQQQQQIIIIIIIIII", node, size, -(-size // 512), 0, 0, 0, 0, 0, 0,
                           mode, 1, 0, 0, 0, PAGE, 0)

    def entry(self, number):
        return struct.pack("<QQQQII", number, 0, 0, 0, 0, 0) + self.attributes(number)


def name_of(body):
    return bytes(body).split(b"\0")[0].decode()


def resize(content, size):
    if size < len(content):
        del content[size:]
    else:
        content.extend(bytes(size - len(content)))


def write(content, offset, data):
    if offset > len(content):
        resize(content, offset)
    content[offset:offset + len(data)] = data


def seek(content, offset, whence):
    """SEEK_DATA and SEEK_HOLE, of a file whose pages of zeros are its holes."""
    if offset >= len(content):
        raise Refused(errno.ENXIO)
    place = offset
    while place < len(content):
        end = (place // PAGE + 1) * PAGE
        if (whence == SEEK_DATA) == any(content[place:end]):
            return place
        place = end
    if whence == SEEK_DATA:
        raise Refused(errno.ENXIO)
    return len(content)


def listing(names, offset, size):
    """Records of readdir(3), from an offset that counts entries."""
    reply = b""
    for index, (name, number) in enumerate(sorted(names.items())):
        if index < offset:
            continue
        text = name.encode()
        record = struct.pack("<QQII", number, index + 1, len(text), stat.S_IFREG >> 12) + text
        record += bytes(-len(record) % 8)
        if len(reply) + len(record) > size:
            break
        reply += record
    return reply
