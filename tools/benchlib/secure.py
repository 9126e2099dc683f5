# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""What TLS costs blkferry, and how fast it and rsync copy a whole device over ssh."""

from . import machine, peers, servers, ssh
from .pair import CASES

MEASURED = ("identical", "all")


def certificate(place):
    """A certificate for the server's address and its key: the paths of their files."""
    made, key = (str(place.directory / name) for name in ("tls.pem", "tls.key"))
    machine.make("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                 "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-keyout", key, "-out", made,
                 "-subj", "/CN=blkferry-bench", "-addext", f"subjectAltName=IP:{servers.HOST}")
    return made, key


def blkferry(binary, direction, pair, certificate=None):
    contestant = peers.blkferry(binary, direction, pair, certificate)
    contestant.cases = MEASURED
    return contestant


def contestants(binary, place, pair):
    """All that can be started, and why the others cannot, by tool; a round takes them in turn."""
    makers = {
        "blkferry": lambda direction: blkferry(binary, direction, pair),
        "blkferry TLS": lambda direction: blkferry(binary, direction, pair, certificate(place)),
        "blkferry ssh": lambda direction: ssh.blkferry(ssh.Setup(place), binary, direction, pair),
        "rsync ssh": lambda direction: ssh.rsync(ssh.Setup(place), direction, pair),
    }
    return peers.made(makers)


def measure(benchmark):
    """All runs of this part, and the speed targets."""
    print("\nTLS and ssh")
    benchmark.choose_all()
    figures = {}
    for case, by_name in benchmark.rounds(MEASURED).items():
        figures[case] = {one.name: machine.summary(by_name[one.name])
                         for one in benchmark.contestants if one.name in by_name}
        print_table("whole copy, all changed" if case == "all" else CASES[case], figures[case])
    return {"secure": {"commands": benchmark.commands(), "cases": figures},
            "goals": goals(figures)}


def print_table(title, figures):
    def to_plain(name, entry):
        plain = figures.get(f"blkferry {name.split()[-1]}")
        return f"{entry['median'] / plain['median']:.2f}" if plain else ""

    machine.print_table(title, figures, {
        "to plain": to_plain, "client MiB": machine.mebibytes("peakMemory")})


def goals(cases):
    """The speed targets, met or missed."""
    found = []

    def ratio(goal, text, case, one, other, limit):
        figures = [cases[case].get(name) for name in (one, other)]
        figure = figures[0]["median"] / figures[1]["median"] if all(figures) else None
        found.append(goal(text, figure, limit))

    for direction in peers.DIRECTIONS:
        plain, tls, over_ssh, rsync = (
            f"{tool} {direction}" for tool in (
                "blkferry", "blkferry TLS", "blkferry ssh", "rsync ssh"))
        ratio(machine.goal, f"{tls}, identical, ratio to plain HTTP", "identical", tls, plain, 1.2)
        ratio(machine.goal_at_least, f"{tls}, whole copy, times as fast as plain HTTP", "all",
              plain, tls, 0.6)
        ratio(machine.goal_at_least, f"{over_ssh}, whole copy, times as fast as rsync", "all",
              rsync, over_ssh, 1.2)
    return found
