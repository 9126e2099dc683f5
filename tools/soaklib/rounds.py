# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""One round of a soak: two devices, a way between them, a fault, and what must hold."""

import os
import random
import signal
import subprocess
import time

from .relay import Relay
from .world import BYSTANDER, HOST, SECTORS, SIDES, port_of

KIB, MIB = 1 << 10, 1 << 20
LIMIT = 180  # seconds of one run
UNDO = "undo"

# The statuses with which the run may end: 0 only if the target is then the replica.
FAULTS = {
    "none": {0},
    "short": {0},
    "EIO, source": {0, 3},
    "EIO, skipped": {0, 6},
    "EIO, target": {0, 3},
    "EIO, write": {0, 3},
    "ENOSPC": {0, 3},
    "cut": {0, 4},
    "kill client": {0, -signal.SIGKILL},
    # By the signal itself, if it comes before the program handles it.
    "stop client": {0, 130, -signal.SIGINT},
    "kill server": {0, 4},
    "stop server": {0, 4},
}
NETWORK = {"cut", "kill server", "stop server"}


class Wrong(Exception):
    """Something that must not be."""


class Round:
    """What a seed says."""

    def __init__(self, seed):
        self.seed = seed
        chance = self.random = random.Random(seed)
        self.transport = chance.choice(["local", "tcp", "tcp", "unix", "tls", "ssh"])
        self.direction = "local" if self.transport == "local" else chance.choice(["push", "pull"])
        faults = [name for name in FAULTS
                  if name not in NETWORK or self.transport in ("tcp", "tls") and name == "cut"
                  or self.transport == "tcp"]
        self.fault = chance.choice(faults)
        if self.fault in ("kill server", "stop server"):
            self.transport = "mortal"
        self.sectors = {side: chance.choice([0, *SECTORS]) for side in SIDES}
        if self.fault == "short":
            # A loop device takes a short write for an error.
            self.sectors = dict.fromkeys(SIDES, 0)
        unit = 4096 if any(self.sectors.values()) else chance.choice([1, 512, 4096])
        largest = chance.choice([64, 1024, 1024, 4096, 16384]) * KIB
        self.size = max(1, chance.randint(1, largest) // unit) * unit
        self.options = self.chosen_options()
        self.undo = self.direction != "push" and chance.random() < 0.4

    def chosen_options(self):
        chance = self.random
        options = ["-c", str(chance.randint(1, 6))]
        if chance.random() < 0.3:
            options += ["-b", str(chance.choice([512, 4096, 8192, 65536]))]
        if chance.random() < 0.2:
            options += ["--whole-file"]
        if chance.random() < 0.3:
            options += ["--verify"]
        if chance.random() < 0.3:
            options += ["-m", chance.choice(["gmac", "poly1305", "sha256", "blake2b512"])]
        if self.direction != "local" and chance.random() < 0.3:
            options += ["--compress", chance.choice(["none", "zstd"])]
        if self.fault == "EIO, skipped":
            options += ["--skip-unreadable"]
        return options

    def __str__(self):
        kinds = "/".join(str(self.sectors[side] or "image") for side in SIDES)
        return (f"{self.transport} {self.direction}, {self.size} bytes, {kinds}, {self.fault}, "
                f"{' '.join(self.options)}{' --undo' if self.undo else ''}")

    # The devices

    def lay_out(self, world):
        chance = self.random
        self.source = bytearray(chance.randbytes(self.size))
        for _ in range(chance.randint(0, 4)):
            start = chance.randrange(self.size)
            end = min(self.size, start + chance.randint(1, MIB))
            self.source[start:end] = bytes(end - start)
        self.source = bytes(self.source)
        old = bytearray(self.source if chance.random() < 0.8 else chance.randbytes(self.size))
        for _ in range(chance.randint(0, 12)):
            start = chance.randrange(self.size)
            end = min(self.size, start + chance.choice([1, 512, 4096, 70_000]))
            old[start:end] = chance.randbytes(end - start)
        if self.sectors["target"] == 0 and chance.random() < 0.3:
            old = old[:chance.randrange(self.size) + 1] + bytes(chance.choice([0, 0, 5000]))
        self.old = bytes(old)
        world.files.clear()
        world.files.remove("journal", UNDO)
        for side in SIDES:
            world.files.remove(side, "disk.img")
        self.paths = {side: world.lay_out(side, self.sectors[side], content)
                      for side, content in zip(SIDES, (self.source, self.old))}

    # The run

    def command(self, world, port=None):
        far = {"push": "target", "pull": "source"}.get(self.direction)
        places = dict(self.paths)
        command = [world.program, "sync", "--overwrite", "--wait", "30s", *self.options]
        if far:
            places[far] = self.address(world, port) + places[far]
        if self.transport == "ssh":
            command += ["--ssh-command", str(world.ssh), "--remote-command", world.program]
        if self.transport == "tls":
            command += ["--cacert", world.certificate]
        return [*command, places["source"], places["target"]]

    def address(self, world, port):
        if self.transport == "ssh":
            return "ssh://soak"
        server = world.servers[self.transport]
        if self.transport == "unix":
            return f"{server.address}:"
        scheme = "https" if self.transport == "tls" else "http"
        return f"{scheme}://{HOST}:{port or port_of(server.address)}"

    def set_faults(self, world):
        files, chance = world.files, self.random
        start = chance.randrange(self.size) // 4096 * 4096
        names = {side: f"disk{self.sectors[side]}" if self.sectors[side] else "disk.img"
                 for side in SIDES}
        self.bad = (start, start + 4096)
        with files.lock:
            if self.fault == "short":
                files.short = 4096 * chance.randint(1, 8)
            elif self.fault in ("EIO, source", "EIO, skipped"):
                files.faults["source", "read"] = (names["source"], *self.bad)
            elif self.fault == "EIO, target":
                files.faults["target", "read"] = (names["target"], *self.bad)
            elif self.fault == "EIO, write":
                files.faults["target", "write"] = (names["target"], *self.bad)
            elif self.fault == "ENOSPC":
                files.room = chance.randrange(self.size)

    def run(self, world):
        """The whole round; returns the status of the run with the fault."""
        self.lay_out(world)
        self.set_faults(world)
        relay = None
        if self.fault == "cut":
            relay = Relay(port_of(world.servers[self.transport].address), self.random,
                          self.random.randint(1, 8))
        try:
            result = self.disturbed(world, relay)
        finally:
            if relay:
                relay.close()
            with world.files.lock:
                world.files.clear()
        self.check(world, result)
        return result.returncode

    def disturbed(self, world, relay):
        command = self.command(world, relay and relay.port)
        if self.undo:
            command += ["--undo", str(world.files.paths["journal"] / UNDO)]
        process = start(command)
        number = {"kill client": signal.SIGKILL, "stop client": signal.SIGINT}.get(self.fault)
        mortal = world.servers["mortal"]
        if number:
            time.sleep(self.random.random() * 0.15)
            process.send_signal(number)
        elif self.fault in ("kill server", "stop server"):
            for _ in range(self.random.randint(1, 3)):
                time.sleep(self.random.random() * 0.1)
                mortal.stop(signal.SIGKILL if self.fault == "kill server" else signal.SIGTERM)
                mortal.start()
        return finish(process, command)

    # What must hold

    def check(self, world, result):
        if result.returncode not in FAULTS[self.fault]:
            raise Wrong(f"status {result.returncode}: {result.stdout.strip()[-300:]}")
        if result.returncode == 0:
            # Holes are not read, so that one may be unreadable.
            if self.fault in ("EIO, source", "EIO, skipped") and any(
                    self.source[self.bad[0]:self.bad[1]]):
                raise Wrong("a place that cannot be read was read")
            self.compare(world, self.source, "the run ended with 0, and the target")
        elif result.returncode == 6:
            self.compare_around(world)
        if self.undo and self.roll_back(world):
            return
        again = finish(*started(self.command(world)))
        if again.returncode != 0:
            raise Wrong(f"a second run: {again.returncode}: {again.stdout.strip()[-300:]}")
        self.compare(world, self.source, "a second run ended with 0, and the target")
        for side in SIDES:
            if world.files.get(side, BYSTANDER) != BYSTANDER.encode() * 1000:
                raise Wrong(f"another image beside the {side} has changed")

    def roll_back(self, world):
        """Rolls the run back, if there is something; returns whether it did."""
        if world.files.get("journal", UNDO) is None:
            if self.random.random() < 0.5 and not world.content(
                    "target", self.sectors["target"]) == self.source:
                self.compare(world, self.old, "there is no journal, and the target")
            return False
        journal = str(world.files.paths["journal"] / UNDO)
        result = finish(*started([world.program, "rollback", journal]))
        if result.returncode != 0:
            # A journal without a whole first page is one of a run that has written nothing.
            self.compare(world, self.old, f"a rollback ended with {result.returncode}, and the "
                         f"target ({result.stdout.strip()[-200:]})")
            return False
        self.compare(world, self.old, "a rollback ended with 0, and the target")
        return True

    def compare(self, world, expected, what):
        found = world.content("target", self.sectors["target"])
        if found != expected:
            raise Wrong(f"{what} differs: {difference(found, expected)}")

    def compare_around(self, world):
        """All but the blocks that touch the unreadable place, of at most 64 KiB."""
        found = world.content("target", self.sectors["target"])
        start, end = self.bad[0] // 65536 * 65536, -(-self.bad[1] // 65536) * 65536
        if len(found) != self.size or found[:start] != self.source[:start] \
                or found[end:] != self.source[end:]:
            raise Wrong(f"what could be read differs: {difference(found, self.source)}")


def difference(found, expected):
    if found is None:
        return "it is gone"
    if len(found) != len(expected):
        return f"{len(found)} bytes in place of {len(expected)}"
    places = [index for index in range(0, len(found), 512)
              if found[index:index + 512] != expected[index:index + 512]]
    return f"{len(places)} sectors, the first at {places[0]}"


def waits(process):
    """Where in the kernel the threads of a process wait."""
    found = []
    for thread in os.listdir(f"/proc/{process}/task"):
        texts = [open(f"/proc/{process}/task/{thread}/{name}").read().strip()
                 for name in ("comm", "wchan", "syscall")]
        found.append(" ".join(texts)[:100])
    return "; ".join(found)


def start(command):
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, cwd="/", start_new_session=True)


def started(command):
    return start(command), command


def finish(process, command):
    try:
        output, _ = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        threads = waits(process.pid)
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        raise Wrong(f"not done after {LIMIT} s, its threads wait in {threads}: "
                    f"{output.decode(errors='replace')[-300:]}") from None
    return subprocess.CompletedProcess(command, process.returncode,
                                       output.decode(errors="replace"))
