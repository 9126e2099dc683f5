# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""Everything for docs/benchmarks.md: the benchmark of pdiffcopy's README, and the cases of `local`
and `net` beside other programs and the floors.

pdiffcopy's benchmark: the first 10, 20 … 100 % of the target were changed, sync. blkferry,
pdiffcopy and rsync (from its daemon), each as pull (from the server) and as push (to it), over the
loopback interface, on two loop devices. They are interleaved, and each goes first in turn. Each
run has a new server, which is ready when the timing begins. Before every run the benchmark brings
the target into the step's state and drops both devices from the page cache. After it, it compares
source and target. It tries several settings of pdiffcopy first, on the step of 50 %, and uses the
fastest for all.

pdiffcopy cannot copy devices, so it works on the files behind them. No program makes whole copies
there: all compare first. pdiffcopy and rsync do not flush what they write. The bytes on the wire
are those that the loopback interface counted during the run, headers included, both ways together.

Writes `benchmarks.md` and `benchmarks.svg` into --output, and the figures into the README.md
beside it, between the lines of comment there.
"""

from pathlib import Path

from . import chart, facts, floors, local, machine, net, page, peers, servers
from .pair import DIRECTORY, Pair, title  # noqa: F401

STEPS = {f"first{percent}": percent for percent in range(10, 101, 10)}
TOOLS = ("blkferry", "pdiffcopy", "rsync")
ROUNDS = 3
TRIED_AT = "first50"


def add_arguments(command):
    command.add_argument("--output", type=Path, default=machine.TOOLS.parent / "docs",
                         help="where the page and its chart go (default: docs)")


class Comparison(net.Benchmark):
    """The steps of pdiffcopy's benchmark, all with the settings that are fastest at one of them."""

    def choose_all(self):
        for contestant in self.contestants:
            self.choose(contestant, TRIED_AT)
            way = contestant.chosen.get(TRIED_AT)
            if way:
                contestant.chosen = dict.fromkeys(STEPS, way)


def contestants(binary, place, pair):
    """All that can be started, and why the others cannot, by name."""
    return peers.made({
        "blkferry": lambda direction: peers.blkferry(binary, direction, pair),
        "pdiffcopy": lambda direction: peers.pdiffcopy(peers.pdiffcopy_program(), direction, pair),
        "rsync": lambda direction: peers.rsync(place, direction, pair),
    })


def measure(options, place):
    if not options.output.is_dir():
        raise machine.Failure(f"{options.output}: not a directory")
    place.need(4 * options.size + (64 << 20))
    facts.print_header(facts.description(options.binary, options.directory))
    with Pair(place, options.size) as pair:
        print(f"{options.size >> 20} MiB each, {options.rounds} rounds, servers on {servers.HOST}")
        digests = peers.negotiated(options.binary, place, pair)
        read, *others = floors.found(place, ("read", "gmac", "poly1305", "move"), pair)
        steps = measure_steps(options, place, pair)
        benchmark = net.started(options, place, pair, digests)
        both = net.cases(benchmark, digests, [read, *others])
        # Last, because it leaves another content behind.
        one = local.cases(options, place, pair, read)
        result = {
            "size": options.size, "rounds": options.rounds, **steps, "net": both, "local": one,
            "missing": {**steps["missing"], **benchmark.missing, **one["missing"]},
            "commands": {
                **{name: named(lines["client"], options, pair, place, lines["server"])
                   for name, lines in chosen(both["commands"], steps["commands"]).items()},
                **{name: named(command, options, pair, place)
                   for name, command in one["commands"].items()}},
        }
    result["goals"] = goals(result["steps"]) + net.goals(both) + local.goals(one["cases"])
    net.print_missing(result["missing"])
    page.write(result, facts.description(options.binary, options.directory), options.output)
    return result


def measure_steps(options, place, pair):
    comparison = Comparison(options, place, pair, *contestants(options.binary, place, pair))
    comparison.choose_all()
    steps = {}
    for case, by_name in comparison.rounds(STEPS).items():
        steps[case] = {name: machine.summary(runs) for name, runs in by_name.items()}
        machine.print_table(title(case), dict(sorted(steps[case].items())),
                            {"wire MiB": machine.mebibytes("wire")})
    return {"steps": steps, "commands": comparison.commands(), "missing": comparison.missing}


def chosen(*commands):
    """One command line of each program: that of the whole copy only where it has no other."""
    found = {}
    for by_name in commands:
        for name, ways in by_name.items():
            if ways:
                found[name] = next(iter(ways.values()))
    return found


def named(client, options, pair, place, server=None):
    """Command lines with names instead of this run's paths."""
    names = {options.binary: "blkferry", str(machine.TOOLS.parent): ".",
             pair.source.path: "SOURCE", pair.target.path: "TARGET",
             str(pair.files[0]): "SOURCE", str(pair.files[1]): "TARGET",
             pair.source.path.removeprefix("/dev/"): "SOURCE",
             pair.target.path.removeprefix("/dev/"): "TARGET", str(place.directory): "DIRECTORY"}

    def line(words):
        program = names.get(words[0], Path(words[0]).name)
        text = " ".join([program, *(f"'{word}'" if " " in word else word for word in words[1:])])
        for path in sorted(names, key=len, reverse=True):
            text = text.replace(path, names[path])
        # The paths began with a slash.
        return text.replace("PORTSOURCE", "PORT/SOURCE").replace("PORTTARGET", "PORT/TARGET")

    return [line(words) for words in (server, client) if words]


def goals(steps):
    """The speed targets, met or missed: a missing contestant cannot be beaten."""
    found = []
    for direction in peers.DIRECTIONS:
        for case, figures in steps.items():
            for other in TOOLS[1:]:
                pair = [figures.get(f"{tool} {direction}") for tool in ("blkferry", other)]
                ratio = pair[0]["median"] / pair[1]["median"] if all(pair) else None
                limit = 1 / 4 if (case, other) == ("first10", "pdiffcopy") else 1
                found.append(machine.goal(
                    f"{direction}, {title(case)}, part of {other}'s time", ratio, limit))
    return found
