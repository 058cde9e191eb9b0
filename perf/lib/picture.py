"""Charts as SVG, with nothing to install: a few kilobytes each, and they diff."""

import math
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 760, 440
LEFT, RIGHT, TOP, BOTTOM = 84, 190, 48, 58
COLOURS = ["#1f6fb4", "#d1495b", "#2e8b57", "#e08e1b", "#7b4fa3", "#58646d", "#12a5a5", "#a0522d"]

# Where the percentiles stand on an axis of 1/(1 - share).
NINES = [[1.0, "0"], [10.0, "90 %"], [100.0, "99 %"], [1000.0, "99.9 %"], [10000.0, "99.99 %"]]


def short(value):
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}"
    return f"{value:.3g}"


class Axis:
    """From values to pixels, and where its ticks stand."""

    def __init__(self, values, low_px, high_px, is_log):
        self.is_log = is_log and min(values) > 0
        low, high = min(values), max(values)
        if self.is_log:
            self.low, self.high = math.floor(math.log10(low)), math.ceil(math.log10(high))
            if self.high == self.low:
                self.high += 1
        else:
            self.low, self.high = min(low, 0), high * 1.05 or 1
        self.low_px, self.high_px = low_px, high_px

    def px(self, value):
        place = math.log10(value) if self.is_log else value
        share = (place - self.low) / (self.high - self.low)
        return self.low_px + share * (self.high_px - self.low_px)

    def ticks(self):
        if self.is_log:
            return [10.0 ** power for power in range(self.low, self.high + 1)]
        step = 10.0 ** math.floor(math.log10(self.high - self.low))
        for finer in (step / 10, step / 5, step / 2, step):
            if (self.high - self.low) / finer <= 8:
                step = finer
                break
        return [step * turn for turn in range(int(self.high / step) + 1)]


def chart(curve):
    lines = {label: points for label, points in curve["lines"].items() if points}
    every = [point for points in lines.values() for point in points]
    ticks_of = dict(map(tuple, curve.get("ticks", [])))
    x = Axis([point[0] for point in every], LEFT, WIDTH - RIGHT, curve["log_x"])
    y = Axis([point[1] for point in every], HEIGHT - BOTTOM, TOP, curve["log_y"])
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>',
        f'<text x="{LEFT}" y="26" font-size="15" font-weight="bold">'
        f'{escape(curve["part"])}: {escape(curve["name"])}</text>',
    ]
    for tick in y.ticks():
        at = y.px(tick)
        out.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>'
                   f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{short(tick)}</text>')
    for tick in x.ticks():
        at, text = x.px(tick), ticks_of.get(tick, short(tick))
        out.append(f'<path d="M{at:.1f} {TOP}V{HEIGHT - BOTTOM}" stroke="#eee"/>'
                   f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{text}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    out.append(f'<text x="{middle}" y="{HEIGHT - 14}" text-anchor="middle">{escape(curve["x"])}</text>')
    out.append(f'<text transform="translate(18 {HEIGHT / 2}) rotate(-90)" text-anchor="middle">'
               f'{escape(curve["y"])}</text>')
    for index, (label, points) in enumerate(lines.items()):
        colour = COLOURS[index % len(COLOURS)]
        places = [(x.px(a), y.px(b)) for a, b in points]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in places)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        if len(places) <= 12:
            out.extend(f'<circle cx="{a:.1f}" cy="{b:.1f}" r="3.5" fill="{colour}"/>' for a, b in places)
        at = TOP + 10 + index * 20
        out.append(f'<path d="M{WIDTH - RIGHT + 14} {at}h18" stroke="{colour}" stroke-width="3"/>'
                   f'<text x="{WIDTH - RIGHT + 38}" y="{at + 4}">{escape(label)}</text>')
    out.append("</svg>\n")
    return "\n".join(out)


def bars(curve):
    """A bar for each name, made of parts: `lines` is {name: [[part, value], …]}."""
    lines = curve["lines"]
    parts = [part for part, _ in max(lines.values(), key=len)]
    totals = {name: sum(value for _, value in it) for name, it in lines.items()}
    left, high, row = 190, TOP + 24 + 34 * len(lines) + 46, 34
    scale = (WIDTH - left - 90) / max(totals.values())
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {high}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{high}" fill="#fff"/>',
        f'<text x="20" y="26" font-size="15" font-weight="bold">'
        f'{escape(curve["part"])}: {escape(curve["name"])}</text>',
    ]
    for place, part in enumerate(parts):
        out.append(f'<rect x="{left + place * 150}" y="{TOP - 8}" width="12" height="12" '
                   f'fill="{COLOURS[place]}"/>'
                   f'<text x="{left + place * 150 + 18}" y="{TOP + 3}">{escape(part)}</text>')
    for index, (name, values) in enumerate(lines.items()):
        y, x = TOP + 24 + index * row, float(left)
        out.append(f'<text x="{left - 10}" y="{y + 16}" text-anchor="end">{escape(name)}</text>')
        for place, (_, value) in enumerate(values):
            out.append(f'<rect x="{x:.1f}" y="{y}" width="{value * scale:.1f}" height="{row - 10}" '
                       f'fill="{COLOURS[place]}"/>')
            x += value * scale
        out.append(f'<text x="{x + 8:.1f}" y="{y + 16}">{totals[name]:.2f}</text>')
    out.append(f'<text x="{left}" y="{high - 18}">{escape(curve["y"])}</text></svg>\n')
    return "\n".join(out)


def percentiles(histogram):
    """Points for a picture of percentiles: x is 1/(1 - share), so that each nine is as wide."""
    total, points, seen = sum(count for _, count in histogram), [], 0
    for upper, count in histogram:
        seen += count
        rest = max(total - seen, 0.5)
        if total / rest <= 10_000 and (not points or total / rest > points[-1][0] * 1.02):
            points.append([round(total / rest, 4), round(upper / 1000, 4)])
    return points
