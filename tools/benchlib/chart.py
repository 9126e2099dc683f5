# SPDX-License-Identifier: Apache-2.0
# Copyright 2026 the blkferry authors
"""Draws the results of `compare`: a panel for each direction, seconds on a logarithmic axis."""

import math
from html import escape

from .peers import DIRECTIONS

WIDTH, PANEL, LEFT, RIGHT, TOP = 860, 330, 70, 190, 92
GAP, BOTTOM = 56, 30
COLOURS = {"blkferry": "#0b5394", "pdiffcopy": "#7b3f98", "rsync": "#a23b00"}
TITLES = {"pull": "Pull: the target is here, the source on the server",
          "push": "Push: the source is here, the target on the server"}


def drawn(result):
    """The chart as SVG."""
    steps = {int(case.removeprefix("first")): figures for case, figures in result["steps"].items()}
    seconds = [entry["median"] for figures in steps.values() for entry in figures.values()]
    low, high = axis(seconds)
    height = TOP + len(DIRECTIONS) * (PANEL + GAP) + BOTTOM
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="DejaVu Sans, Verdana, sans-serif" font-size="14" role="img" '
        'aria-label="Time of a sync at growing change">',
        # Of its own, so that it reads the same on a dark page.
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        text(24, 36, f"Time of a sync of {result['size'] >> 20} MiB at growing change", size=20),
        text(24, 60, f"median seconds of {result['rounds']} rounds, lower is better; "
                     "each line up is twice the time", fill="#555"),
    ]
    for number, direction in enumerate(DIRECTIONS):
        top = TOP + number * (PANEL + GAP)
        parts += panel(direction, steps, low, high, top)
    return "\n".join([*parts, "</svg>"]) + "\n"


def axis(seconds):
    """The powers of two around all figures."""
    return (math.floor(math.log2(min(seconds))), math.ceil(math.log2(max(seconds))))


def panel(direction, steps, low, high, top):
    inner = PANEL - 60
    bottom = top + 30 + inner

    def x(percent):
        return LEFT + (WIDTH - LEFT - RIGHT) * percent / 100

    def y(seconds):
        return bottom - inner * (math.log2(seconds) - low) / max(high - low, 1)

    parts = [text(24, top + 8, TITLES[direction], weight="bold")]
    for power in range(low, high + 1):
        line = y(2.0 ** power)
        parts.append(f'<line x1="{LEFT}" x2="{x(100):.1f}" y1="{line:.1f}" y2="{line:.1f}" '
                     'stroke="#ddd"/>')
        parts.append(text(LEFT - 8, line + 5, f"{2.0 ** power:g} s", anchor="end", fill="#333"))
    for percent in range(0, 101, 20):
        parts.append(text(x(percent), bottom + 20, f"{percent} %", anchor="middle", fill="#333"))
    parts.append(text((x(0) + x(100)) / 2, bottom + 40, "changed part of the target",
                      anchor="middle", fill="#333"))
    labels = []
    for tool, colour in COLOURS.items():
        points = [(x(percent), y(figures[f"{tool} {direction}"]["median"]))
                  for percent, figures in sorted(steps.items()) if f"{tool} {direction}" in figures]
        if not points:
            continue
        path = " ".join(f"{left:.1f},{up:.1f}" for left, up in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        parts += [f'<circle cx="{left:.1f}" cy="{up:.1f}" r="4" fill="{colour}"/>'
                  for left, up in points]
        last = steps[max(steps)].get(f"{tool} {direction}")
        if last:
            labels.append((points[-1][1], f"{tool} {last['median']:.2f} s", colour))
    for up, label, colour in spread(sorted(labels)):
        parts.append(text(x(100) + 12, up + 5, label, fill=colour, weight="bold"))
    return parts


def spread(labels, least=20):
    """The same, from the top, with room between them."""
    placed = []
    for up, label, colour in labels:
        if placed:
            up = max(up, placed[-1][0] + least)
        placed.append((up, label, colour))
    return placed


def text(x, y, words, size=14, anchor="start", fill="#222", weight="normal"):
    return (f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" '
            f'fill="{fill}" font-weight="{weight}">{escape(words)}</text>')
