# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""The benchmark of pdiffcopy's README: the first 10, 20 … 100 % of the target were changed, sync.

blkferry, pdiffcopy and rsync (from its daemon), each as pull (from the server) and as push (to it),
over the loopback interface, on two loop devices. They are interleaved, and each goes first in turn.
Each run has a new server, which is ready when the timing begins. Before every run the benchmark
brings the target into the step's state and drops both devices from the page cache. After it, it
compares source and target. It tries several settings of pdiffcopy first, on the step of 50 %, and
uses the fastest for all.

pdiffcopy cannot copy devices, so it works on the files behind them. No program makes whole copies
here: all compare first. pdiffcopy and rsync do not flush what they write. The bytes on the wire are those
that the loopback interface counted during the run, headers included, both ways together.

Writes `benchmarks.md` and `benchmarks.svg` into --output.
"""

from pathlib import Path

from . import chart, machine, net, page, peers, servers
from .pair import DIRECTORY, Pair, title  # noqa: F401

STEPS = {f"first{percent}": percent for percent in range(10, 101, 10)}
TOOLS = ("blkferry", "pdiffcopy", "rsync")
ROUNDS = 3
TRIED_AT = "first50"
WIRE = Path("/sys/class/net/lo/statistics/rx_bytes")


def add_arguments(command):
    command.add_argument("--output", type=Path, default=peers.TOOLS.parent / "docs",
                         help="where the page and its chart go (default: docs)")


class Comparison(net.Benchmark):
    """The contestants, their times and bytes, and the failures."""

    def run(self, contestant, way, case):
        """One run; the bytes on the wire come last."""
        def client():
            port = servers.free_port()
            with contestant.server_class(
                    self.place, way.server(port), port, contestant.is_ready) as server:
                before = int(WIRE.read_text())
                figures = self.place.run(way.client(port, case), limit=net.LIMIT)
                return (*figures, server.peak_memory(), int(WIRE.read_text()) - before)

        return self.pair.timed(contestant.name, case, client)

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
    place.need(2 * options.size + (64 << 20))
    with Pair(place, options.size) as pair:
        print(f"Two loop devices of {options.size >> 20} MiB on files in {options.directory}, "
              f"{options.rounds} rounds, servers on {servers.HOST}")
        found, missing = contestants(options.binary, place, pair)
        comparison = Comparison(options, place, pair, found, missing)
        comparison.choose_all()
        runs = comparison.rounds(STEPS)
        result = {
            "missing": missing, "commands": named(comparison.commands(), options, pair),
            "size": options.size, "rounds": options.rounds,
            "steps": {case: {name: summary(figures) for name, figures in by_name.items()}
                      for case, by_name in runs.items()},
        }
    result["goals"] = goals(result["steps"])
    for case, by_name in result["steps"].items():
        print_step(title(case), by_name)
    net.print_missing(missing)
    where = machine.description(options.binary)
    where["pdiffcopy"] = machine.first_line(
        peers.pdiffcopy_program().replace("/bin/pdiffcopy", "/bin/pip"), "list", "--format=freeze",
        contains="pdiffcopy==")
    (options.output / "benchmarks.svg").write_text(chart.drawn(result))
    (options.output / "benchmarks.md").write_text(page.written(result, where))
    return result


def summary(runs):
    entry = net.summary(runs)
    entry["wire"] = machine.median(run[3] for run in runs)
    return entry


def named(commands, options, pair):
    """One command line of each, with names instead of this run's paths."""
    names = {options.binary: "blkferry", pair.source.path: "SOURCE", pair.target.path: "TARGET",
             str(pair.files[0]): "SOURCE", str(pair.files[1]): "TARGET",
             pair.source.path.removeprefix("/dev/"): "SOURCE",
             pair.target.path.removeprefix("/dev/"): "TARGET",
             str(pair.files[0].parent): "DIRECTORY"}

    def line(words):
        text = " ".join(Path(words[0]).name if word is words[0] else word for word in words)
        for path in sorted(names, key=len, reverse=True):
            text = text.replace(path, names[path])
        # The paths began with a slash.
        return text.replace("PORTSOURCE", "PORT/SOURCE").replace("PORTTARGET", "PORT/TARGET")

    # One of each is enough: they are the same for all steps.
    return {name: {side: line(next(iter(ways.values()))[side]) for side in ("server", "client")}
            for name, ways in commands.items() if ways}


def print_step(name, figures):
    print(f"\n{name}\n  {'':16} {'median s':>9} {'min':>8} {'max':>8} {'wire MiB':>9}")
    for tool, entry in sorted(figures.items()):
        print(f"  {tool:16} {entry['median']:9.3f} {entry['min']:8.3f} {entry['max']:8.3f} "
              f"{entry['wire'] / 2**20:9.1f}")


def goals(steps):
    """The speed targets, met or missed: a missing contestant cannot be beaten."""
    found = []
    for direction in peers.DIRECTIONS:
        for case, figures in steps.items():
            for other in TOOLS[1:]:
                pair = [figures.get(f"{tool} {direction}") for tool in ("blkferry", other)]
                ratio = pair[0]["median"] / pair[1]["median"] if all(pair) else None
                limit = 1 / 3 if (case, other) == ("first10", "pdiffcopy") else 1
                found.append(machine.goal(
                    f"{direction}, {title(case)}, part of {other}'s time", ratio, limit))
    return found
