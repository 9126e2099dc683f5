# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""Where programs run on logged directories, and on a loop device on a file in one of them."""

import ctypes
import errno
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
import uuid
from pathlib import Path

from . import fuse
from .fuse import Failure

TOOLS = Path(__file__).resolve().parents[1]
LOOP_CONFIGURE, LOOP_CTL_GET_FREE, BLKFLSBUF = 0x4C0A, 0x4C82, 0x1261
LO_FLAGS_AUTOCLEAR = 4
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 1 << 18
LIMIT = 120  # seconds of one run
BOOT = "/proc/sys/kernel/random/boot_id"
MS_BIND = 0x1000

TARGET, JOURNAL, STATE = "target", "journal", "state"
IMAGE = "disk.img"


def blkferry(path):
    """The program: the one given, or the release, built when there is none."""
    if path is None:
        path = TOOLS.parent / "release/blkferry"
        if not path.exists():
            subprocess.run([TOOLS / "release"], check=True)
    if not os.access(path, os.X_OK):
        raise Failure(f"{path}: not a program")
    return str(path.resolve())


def leave_mounts():
    """From now on this process mounts for itself only, and its mounts end with it."""
    root = ctypes.c_char_p(b"/")
    if fuse.LIBC.unshare(CLONE_NEWNS) != 0 or fuse.LIBC.mount(
            None, root, None, MS_REC | MS_PRIVATE, None) != 0:
        raise Failure("mounts of its own need root: " + os.strerror(ctypes.get_errno()))


class Loop:
    """A loop device that is detached with this object or this process, even if that is killed."""

    def __init__(self, path, sector=512):
        backing = os.open(path, os.O_RDWR)
        control = os.open("/dev/loop-control", os.O_RDWR)
        try:
            while True:
                number = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
                self.path = f"/dev/loop{number}"
                writer = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
                # struct loop_config: descriptor, block size, struct loop_info64
                info = struct.pack("=5Q4I64s64s32s2Q", 0, 0, 0, 0, 0, 0, 0, 0, LO_FLAGS_AUTOCLEAR,
                                   os.fsencode(path)[:63], b"", b"", 0, 0)
                try:
                    fcntl.ioctl(writer, LOOP_CONFIGURE,
                                struct.pack("=II", backing, sector) + info + bytes(64))
                    # Only for reading, because blkferry asks who else may write.
                    self.descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
                    # FUSE splits longer ones. If only the second part fails, Linux 6.18 reports
                    # the request as done (lo_complete_rq in drivers/block/loop.c).
                    Path(f"/sys/block/loop{number}/queue/max_sectors_kb").write_text("512")
                    break
                except OSError as error:
                    if error.errno != errno.EBUSY:
                        raise
                finally:
                    os.close(writer)
        finally:
            os.close(control)
            os.close(backing)

    def forget(self):
        """Writes back what the kernel has of it in memory, and drops it."""
        fcntl.ioctl(self.descriptor, BLKFLSBUF)

    def close(self):
        os.close(self.descriptor)


class Result:
    def __init__(self, command, status, output):
        self.command, self.status, self.output = command, status, output

    def __str__(self):
        text = " / ".join(self.output.strip().splitlines()[-3:])
        return f"{' '.join(self.command)}: {self.status}: {text}"


class Stage:
    """Logged directories, a directory beside them, and the program, until the end of the `with`."""

    def __init__(self, program, place):
        self.program = program
        self.place = Path(place)
        self.loop = None
        self.server = None
        self.runs = 0

    def __enter__(self):
        leave_mounts()
        self.files = fuse.FileSystem(self.place, [TARGET, JOURNAL, STATE])
        self.files.__enter__()
        self.paths = self.files.paths
        self.beside = self.place / "beside"
        self.beside.mkdir()
        self.boot = self.place / "boot"
        self.restart()
        if fuse.LIBC.mount(os.fsencode(self.boot), BOOT.encode(), None, MS_BIND, None) != 0:
            raise Failure(f"{BOOT}: mount: {os.strerror(ctypes.get_errno())}")
        return self

    def restart(self):
        """From now on programs see that the machine was started again."""
        self.boot.write_text(f"{uuid.uuid4()}\n")

    def __exit__(self, *_):
        self.stop_server()
        self.use_image()
        self.files.__exit__()
        shutil.rmtree(self.place, ignore_errors=True)

    # The target

    @property
    def image(self):
        return str(self.paths[TARGET] / IMAGE)

    @property
    def target(self):
        return self.loop.path if self.loop else self.image

    def use_loop(self):
        """From now on the target is a loop device on the image, which has to exist."""
        self.loop = Loop(self.image)

    def use_image(self):
        if self.loop:
            self.loop.close()
            self.loop = None

    # The disks

    def load(self, disk):
        """The disk after a power cut."""
        self.restart()
        if self.loop:
            self.loop.forget()
        self.files.load(disk)

    def disk(self):
        if self.loop:
            self.loop.forget()
        return self.files.snapshot()

    # Programs

    def run(self, *arguments, binary=None):
        """Runs blkferry to its end; the log gets its status."""
        command = [binary or self.program, *map(str, arguments)]
        self.runs += 1
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C",
                       "STATE_DIRECTORY": str(self.paths[STATE])}
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, env=environment, cwd="/",
                                   start_new_session=True)
        try:
            output, _ = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            output += f"not done after {LIMIT} s".encode()
        with self.files.lock:
            self.files.log.append(("ended", process.returncode))
        return Result(command[1:], process.returncode, output.decode(errors="replace"))

    def serve(self, *arguments):
        """Starts a server; returns its address."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        self.server = subprocess.Popen(
            [self.program, "serve", "-q", "--listen", f"127.0.0.1:{port}", *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
        end = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=5).close()
                return f"http://127.0.0.1:{port}"
            except OSError:
                if time.monotonic() > end or self.server.poll() is not None:
                    raise Failure("the server does not listen") from None
                time.sleep(0.02)

    def stop_server(self):
        if self.server:
            self.server.terminate()
            self.server.wait()
            self.server = None
