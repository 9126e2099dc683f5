# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""The programs of the network benchmark: how each is started, and the settings that are tried."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

from . import machine, ranges, servers
from .pair import CASES

DIRECTIONS = ("pull", "push")


@dataclass
class Way:
    """One set of options: the server's command line by port, the client's by port and case."""

    label: str
    server: Callable[[int], list]
    client: Callable[[int, str], list]


@dataclass
class Contestant:
    """A program in one direction, with several settings; the fastest one counts in each case."""

    tool: str
    direction: str
    ways: list
    cases: tuple = tuple(CASES)
    is_ready: Callable[[int], bool] = servers.listens
    server_class: type = servers.Server
    output: Path | None = None  # what it writes, if not the target
    chosen: dict = field(default_factory=dict)

    @property
    def name(self):
        return f"{self.tool} {self.direction}"


def ends(direction, source, target, remote):
    """The source and the target as a client names them."""
    return (remote(source), target) if direction == "pull" else (source, remote(target))


def blkferry(binary, direction, pair, certificate=None, digest=None):
    """Over HTTP, or over TLS with a certificate: the paths of a file and of its key.

    Without a digest both sides agree on one.
    """
    scheme, served, asked = "http", [], []
    if certificate:
        scheme, asked = "https", ["--cacert", certificate[0]]
        served = ["--tls-cert", certificate[0], "--tls-key", certificate[1]]
    if digest:
        asked = [*asked, "-m", digest]

    def server(port):
        return [binary, "serve", "--listen", f"{servers.HOST}:{port}", *served,
                "--export", pair.source.path, "--export", f"{pair.target.path}:rw"]

    def client(port, case):
        whole = ["--whole-file"] if case == "all" else []
        return [binary, "-q", *whole, *asked, *ends(
            direction, pair.source.path, pair.target.path,
            lambda path: f"{scheme}://{servers.HOST}:{port}{path}")]

    tool = " ".join(["blkferry", *(["TLS"] if certificate else []), *([digest] if digest else [])])
    return Contestant(tool, direction, [Way("defaults", server, client)])


def negotiated(binary, place, pair):
    """The digest on which client and server agree here, and the one beside which it is measured."""
    way = blkferry(binary, "pull", pair).ways[0]
    port = servers.free_port()
    with servers.Server(place, way.server(port), port):
        done = subprocess.run([*way.client(port, ""), "--json", "--dry-run"],
                              capture_output=True, text=True)
    if done.returncode != 0:
        raise machine.Failure(f"{binary}: {done.stderr.strip()}")
    agreed = json.loads(done.stdout).get("digest", "unknown, as this version prints none")
    other = "gmac" if agreed == "poly1305" else "poly1305"
    print(f"Digest: both sides agreed on {agreed}; {other} is measured beside it")
    return agreed, other


def pdiffcopy_program():
    """pdiffcopy in an environment of its own, installed when it is missing."""
    done = subprocess.run([machine.TOOLS / "pdiffcopy"], capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise machine.Failure(f"cannot be installed: {' '.join(last)}")
    return done.stdout.strip()


def pdiffcopy(program, direction, pair):
    """On the files behind the devices, as it takes the size of a device for 0."""
    source, target = map(str, pair.files)

    def way(label, options):
        def client(port, case):
            whole = ["--whole-file"] if case == "all" else []
            return [program, "--quiet", *options, *whole, *ends(
                direction, source, target, lambda path: f"http://{servers.HOST}:{port}{path}")]

        return Way(label, lambda port: [program, f"--listen={servers.HOST}:{port}"], client)

    many = str(2 * os.cpu_count())
    ways = [way("defaults", []), way(f"--concurrency={many}", [f"--concurrency={many}"]),
            way("--block-size=64K", ["--block-size=64K"])]
    return Contestant("pdiffcopy", direction, ways, is_ready=servers.answers)


def nbdcopy(direction, pair):
    """Whole copies only: nbdcopy has no other mode."""
    exported = pair.source.path if direction == "pull" else pair.target.path

    def way(caching, options):
        def server(port):
            return ["nbdkit", "--foreground", "--port", str(port), "--ipaddr", servers.HOST,
                    "file", exported, *caching]

        def client(port, _):
            return ["nbdcopy", "--flush", *options, *ends(
                direction, pair.source.path, pair.target.path,
                lambda _: f"nbd://{servers.HOST}:{port}")]

        return Way(" ".join([*caching, *options]) or "defaults", server, client)

    ways = [way(caching, options) for caching in ([], ["cache=none"])
            for options in ([], ["--connections=2", "--request-size=1048576"])]
    return Contestant("nbdcopy", direction, ways, cases=("all",))


RSYNC_SETTINGS = """\
use chroot = no
uid = {uid}
gid = {gid}
log file = /dev/null
[bench]
path = /dev
list = no
read only = no
hosts allow = {host}
include = {source} {target}
exclude = *
refuse options = !copy-devices !write-devices
"""


def rsync(place, direction, pair):
    """Device to device; its daemon shows nothing else in /dev."""
    settings = place.directory / "rsyncd.conf"
    settings.write_text(RSYNC_SETTINGS.format(
        uid=os.getuid(), gid=os.getgid(), host=servers.HOST,
        source=pair.source.path.removeprefix("/dev"), target=pair.target.path.removeprefix("/dev")))

    def server(port):
        return ["rsync", "--daemon", "--no-detach", f"--config={settings}", f"--port={port}",
                f"--address={servers.HOST}"]

    def client(port, case):
        whole = "--whole-file" if case == "all" else "--no-whole-file"
        return ["rsync", "-I", "--inplace", whole, "--copy-devices", "--write-devices", *ends(
            direction, pair.source.path, pair.target.path,
            lambda path: f"rsync://{servers.HOST}:{port}/bench/{path.removeprefix('/dev/')}")]

    return Contestant("rsync", direction, [Way("defaults", server, client)])


def zsync(place, direction, pair):
    """The file behind the source, by a web server, into a new file, the old target its seed.

    The time includes that of zsyncmake, which reads the source as the other programs' servers do.
    """
    if not shutil.which("zsync"):
        raise machine.Failure("no zsync")
    if direction == "push":
        raise machine.Failure("it only pulls")
    directory, output = place.directory / "www", place.directory / "zsync.target"
    directory.mkdir(exist_ok=True)
    source = directory / "source"
    if not source.exists():
        source.hardlink_to(pair.files[0])

    def server(port):
        return [sys.executable, ranges.__file__, servers.HOST, str(port), str(directory)]

    def client(port, _):
        # It renames its output from the working directory.
        return ["sh", "-c", f"zsyncmake -u source -o {source}.zsync {source} && "
                f"cd {place.directory} && zsync -q -i {pair.files[1]} -o {output.name} "
                f"http://{servers.HOST}:{port}/source.zsync"]

    return Contestant("zsync", direction, [Way("defaults", server, client)],
                      cases=("identical", "first10", "random1"), output=output)


def contestants(binary, place, pair, other):
    """All that can be started, and why the others cannot, by tool; blkferry also with the other
    digest.
    """
    makers = {
        "blkferry": lambda direction: blkferry(binary, direction, pair),
        f"blkferry {other}": lambda direction: blkferry(binary, direction, pair, digest=other),
        "pdiffcopy": lambda direction: pdiffcopy(pdiffcopy_program(), direction, pair),
        "nbdcopy": lambda direction: nbdcopy(direction, pair),
        "rsync": lambda direction: rsync(place, direction, pair),
        "zsync": lambda direction: zsync(place, direction, pair),
    }
    return made(makers)


def made(makers):
    """What the makers make in each direction, and why some could not, by name."""
    found, missing = [], {}
    for tool, maker in makers.items():
        for direction in DIRECTIONS:
            try:
                found.append(maker(direction))
            except machine.Failure as failure:
                missing[f"{tool} {direction}"] = str(failure)
    return found, missing
