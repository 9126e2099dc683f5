# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""An sshd with keys of its own on the loopback interface, and the programs that copy through it."""

import os
import shlex
import shutil
import signal
import subprocess
import time
from pathlib import Path

from . import machine, servers
from .peers import Contestant, Way, ends

CONNECTIONS = ("1", "2", "4")  # beside blkferry's default
HOST_KEY_ALIAS = "blkferry-bench"  # so that known_hosts need not know the port
MARK = "BLKFERRY_BENCH"  # a variable by which the sessions' processes are found

# Without PAM and StrictModes neither this system's logins nor the rights of --directory matter.
SERVER_SETTINGS = """\
ListenAddress {host}
HostKey {directory}/host
AuthorizedKeysFile {directory}/authorized_keys
PidFile {directory}/sshd.pid
StrictModes no
UsePAM no
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
MaxStartups 100
SetEnv {mark}={directory}
"""
CLIENT_SETTINGS = """\
BatchMode yes
IdentityFile {directory}/user
IdentitiesOnly yes
IdentityAgent none
UserKnownHostsFile {directory}/known_hosts
GlobalKnownHostsFile /dev/null
HostKeyAlias {alias}
StrictHostKeyChecking yes
"""


class Setup:
    """The keys and settings of both sides, in a directory; the cipher is ssh's default."""

    def __init__(self, place):
        # Root's PATH may lack it; sshd starts itself again and wants its whole path for that.
        self.sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/local/sbin:/usr/sbin")
        self.sshd = self.sshd and os.path.abspath(self.sshd)
        if not self.sshd:
            raise machine.Failure("no sshd")
        # Where sshd's unprivileged part lives. It stays: another sshd may have come to use it.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.directory = place.directory.resolve() / "ssh"
        self.directory.mkdir(exist_ok=True)
        for key in ("host", "user"):
            if not (self.directory / key).exists():
                machine.make("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", key,
                             "-f", str(self.directory / key))
        self.write("authorized_keys", (self.directory / "user.pub").read_text())
        self.write("known_hosts", f"{HOST_KEY_ALIAS} {(self.directory / 'host.pub').read_text()}")
        self.write("sshd_config", SERVER_SETTINGS)
        self.write("config", CLIENT_SETTINGS)

    def write(self, name, text):
        (self.directory / name).write_text(text.format(
            directory=self.directory, host=servers.HOST, alias=HOST_KEY_ALIAS, mark=MARK))

    def server(self, port):
        return [self.sshd, "-D", "-e", "-f", f"{self.directory}/sshd_config", "-p", str(port)]

    def client(self):
        """The ssh that blkferry and rsync start, as one text."""
        return f"ssh -F {shlex.quote(f'{self.directory}/config')}"


class SSHServer(servers.Server):
    """An sshd. The programs of its sessions leave its process group, and are ended with it."""

    def __init__(self, place, command, port, _):
        # Not by a connection: sshd would still be busy with it when the timing begins.
        super().__init__(place, command, port, lambda _: b"Server listening on" in os.pread(
            self.words.fileno(), 1 << 16, 0))
        self.mark = f"{MARK}={place.directory.resolve()}/ssh".encode()

    def stop(self):
        output = super().stop()
        # They end by themselves when their client does.
        begin = time.monotonic()
        while left := self.sessions():
            waited = time.monotonic() - begin
            if waited > 2 * servers.STOP_LIMIT:
                raise machine.Failure(f"processes {left} do not end")
            if waited > servers.STOP_LIMIT:
                for process in left:
                    kill(process)
            time.sleep(0.02)
        return output

    def sessions(self):
        """The processes of all sessions that are left."""
        found = []
        for entry in os.listdir("/proc"):
            try:
                if entry.isdigit() and self.mark in Path(
                        f"/proc/{entry}/environ").read_bytes().split(b"\0"):
                    found.append(int(entry))
            except OSError:
                pass  # It has ended in the meantime.
        return found

    def peak_memory(self):
        """Not known: what worked for the client has ended with it."""
        return 0

    def cpu_total(self):
        """With the sessions that have ended, for which sshd has waited."""
        end = time.monotonic() + servers.STOP_LIMIT
        while self.sessions() and time.monotonic() < end:
            time.sleep(0.02)
        return super().cpu_total()


def kill(process):
    try:
        os.kill(process, signal.SIGKILL)
    except ProcessLookupError:
        pass


def blkferry(setup, binary, direction, pair):
    """A whole copy by ssh, which starts the other side."""
    def way(options):
        def client(port, _):
            return [binary, "-q", "--whole-file", *options, "--ssh-command", setup.client(),
                    "--remote-command", shlex.quote(binary), *ends(
                        direction, pair.source.path, pair.target.path,
                        lambda path: f"ssh://root@{servers.HOST}:{port}{path}")]

        return Way(" ".join(options) or "defaults", setup.server, client)

    ways = [way([]), *(way(["-c", count]) for count in CONNECTIONS)]
    return Contestant("blkferry ssh", direction, ways, cases=("all",), server_class=SSHServer)


def rsync(setup, direction, pair):
    """The same by rsync; without its checksum too, which ssh makes superfluous."""
    def way(options):
        def client(port, _):
            return ["rsync", "-I", "--inplace", "--whole-file", "--copy-devices",
                    "--write-devices", *options, f"--rsync-path={shutil.which('rsync')}",
                    "-e", f"{setup.client()} -p {port}", *ends(
                        direction, pair.source.path, pair.target.path,
                        lambda path: f"root@{servers.HOST}:{path}")]

        return Way(" ".join(options) or "defaults", setup.server, client)

    if not shutil.which("rsync"):
        raise machine.Failure("no rsync")
    ways = [way([*checksum, *blocking]) for checksum in ([], ["--checksum-choice=none"])
            for blocking in ([], ["--blocking-io"])]
    return Contestant("rsync ssh", direction, ways, cases=("all",), server_class=SSHServer)
