# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""The devices and servers of a soak: files behind FUSE with faults, loop devices on them, servers."""

import errno
import fcntl
import os
import re
import signal
import socket
import struct
import subprocess
import time

from powercutlib import fuse
from powercutlib.fuse import Failure
from powercutlib.stage import Loop, leave_mounts

HOST = "127.0.0.1"
LOOP_SET_CAPACITY = 0x4C07
SESSION_SECONDS = 3
START_LIMIT = 60  # seconds
SECTORS = (512, 4096)
SIDES = ("source", "target")
BYSTANDER = "bystander"


class Unlogged(list):
    def append(self, _):
        pass


class FaultyFiles(fuse.FileSystem):
    """Directories in memory whose files fail as a round says.

    `faults` has the error number by the file's name and "read" or "write", with the range of bytes
    that fails; `room` is how many bytes can still be written, and `short` the longest transfer.
    """

    def __init__(self, place, directories):
        super().__init__(place, directories)
        self.clear()

    def clear(self):
        self.log = Unlogged()
        self.faults = {}
        self.room = None
        self.short = None

    def handle(self, directory, opcode, node, body):
        if opcode in (fuse.READ, fuse.WRITE):
            return self.transfer(directory, opcode, node, body)
        if opcode == fuse.FALLOCATE:
            offset, length = struct.unpack_from("<QQ", body, 8)
            self.check(directory, node, "write", offset, length)
        return super().handle(directory, opcode, node, body)

    def transfer(self, directory, opcode, node, body):
        _, offset, size = struct.unpack_from("<QQI", body)
        kind = "read" if opcode == fuse.READ else "write"
        self.check(directory, node, kind, offset, size)
        if self.short and size > self.short:
            body = bytearray(body)
            struct.pack_into("<I", body, 16, self.short)
        if kind == "write" and self.room is not None and directory == "target":
            self.room -= size
            if self.room < 0:
                raise fuse.Refused(errno.ENOSPC)
        return super().handle(directory, opcode, node, body)

    def check(self, directory, node, kind, offset, size):
        fault = self.faults.get((directory, kind))
        if fault and self.disk.names[directory].get(fault[0]) == node \
                and offset < fault[2] and fault[1] < offset + size:
            raise fuse.Refused(errno.EIO)

    def put(self, directory, name, content):
        """Replaces a file's bytes; nobody may have it open but a loop device."""
        with self.lock:
            number = self.disk.names[directory].get(name)
            if number is None:
                number = self.next
                self.next += 1
                self.disk.names[directory][name] = number
            self.disk.files[number] = bytearray(content)

    def get(self, directory, name):
        with self.lock:
            return self.disk.content(directory, name)

    def remove(self, directory, name):
        with self.lock:
            number = self.disk.names[directory].pop(name, None)
            self.disk.files.pop(number, None)


class Server:
    """A blkferry serve that can be killed and started again at the same place."""

    def __init__(self, world, name, listen, *options):
        self.world, self.name = world, name
        # It ends with this process, even if that is killed.
        self.command = ["setpriv", "--pdeathsig", "KILL", world.program, "serve", "-q",
                        "--listen", listen, "--session-timeout", str(SESSION_SECONDS), *options]
        self.address = listen
        self.log = open(world.place / f"{name}.log", "ab")
        self.process = None
        self.start()

    def start(self):
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self.log,
            cwd="/", start_new_session=True)
        end = time.monotonic() + START_LIMIT
        while not self.listens():
            if time.monotonic() > end or self.process.poll() is not None:
                raise Failure(f"the server {self.name} does not listen")
            time.sleep(0.02)

    def listens(self):
        try:
            if self.address.startswith("unix:"):
                with socket.socket(socket.AF_UNIX) as one:
                    one.connect(self.address[5:])
            else:
                socket.create_connection((HOST, port_of(self.address)), timeout=5).close()
            return True
        except OSError:
            return False

    def stop(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def figures(self):
        """Resident KiB, descriptors and threads."""
        with open(f"/proc/{self.process.pid}/status") as status:
            text = status.read()
        return {"KiB": int(re.search(r"^VmRSS:\s+(\d+)", text, re.MULTILINE)[1]),
                "descriptors": len(os.listdir(f"/proc/{self.process.pid}/fd")),
                "threads": int(re.search(r"^Threads:\s+(\d+)", text, re.MULTILINE)[1])}


def port_of(address):
    return int(address.rpartition(":")[2])


def free_port():
    with socket.create_server((HOST, 0)) as listener:
        return listener.getsockname()[1]


class World:
    """Everything that the rounds share, until the end of the `with`."""

    def __init__(self, program, place):
        self.program, self.place = program, place

    def __enter__(self):
        leave_mounts()
        self.files = FaultyFiles(self.place, [*SIDES, "journal"])
        self.files.__enter__()
        self.loops, self.servers = {}, {}
        try:
            for side in SIDES:
                for sector in SECTORS:
                    name = f"disk{sector}"
                    self.files.put(side, name, bytes(1 << 20))
                    self.loops[side, sector] = Loop(str(self.files.paths[side] / name), sector)
                self.files.put(side, BYSTANDER, BYSTANDER.encode() * 1000)
            self.write_fake_ssh()
            self.start_servers()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for server in self.servers.values():
            server.stop(signal.SIGKILL)
            server.log.close()
        for loop in self.loops.values():
            loop.close()
        self.files.__exit__()

    def start_servers(self):
        exports = [f"{self.files.paths[side]}/:rw" for side in SIDES]
        exports += [f"{loop.path}:rw" for loop in self.loops.values()]
        exports = [word for one in exports for word in ("--export", one)]
        certificate, key = str(self.place / "tls.pem"), str(self.place / "tls.key")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-days", "2", "-keyout", key, "-out", certificate, "-subj", "/CN=soak",
             "-addext", f"subjectAltName=IP:{HOST}"], check=True, capture_output=True)
        self.certificate = certificate
        for name, listen, options in (
                ("tcp", f"{HOST}:{free_port()}", []), ("unix", f"unix:{self.place}/socket", []),
                ("tls", f"{HOST}:{free_port()}", ["--tls-cert", certificate, "--tls-key", key]),
                # The one that is killed and started again.
                ("mortal", f"{HOST}:{free_port()}", [])):
            self.servers[name] = Server(self, name, listen, *options, *exports)

    @property
    def steady(self):
        """The servers that live through everything."""
        return [server for name, server in self.servers.items() if name != "mortal"]

    def write_fake_ssh(self):
        """What stands for ssh(1): it runs the command on this host."""
        self.ssh = self.place / "fake-ssh"
        self.ssh.write_text('#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift 2\n'
                            'exec sh -c "$*"\n')
        self.ssh.chmod(0o755)

    def lay_out(self, side, sector, content):
        """Puts content on a loop device, or with 0 for the sector in an image; returns the path."""
        if sector == 0:
            self.files.put(side, "disk.img", content)
            return str(self.files.paths[side] / "disk.img")
        loop = self.loops[side, sector]
        loop.forget()
        self.files.put(side, f"disk{sector}", content)
        fcntl.ioctl(loop.descriptor, LOOP_SET_CAPACITY)
        loop.forget()
        return loop.path

    def content(self, side, sector):
        if sector == 0:
            return self.files.get(side, "disk.img")
        self.loops[side, sector].forget()
        return self.files.get(side, f"disk{sector}")
