"""Figures: a median over rounds with its spread, its goal, and whether that is met."""

import json
import math
import os
import statistics

from lib import picture, progress


def number(value, unit=""):
    if value is None:
        return "-"
    if unit == "%":
        return f"{value:.2f} %" if value >= 1 else f"{value:.3f} %"
    if value == 0 or abs(value) >= 1000:
        text = f"{value:,.0f}"
    elif abs(value) >= 100:
        text = f"{value:.1f}"
    elif abs(value) >= 1:
        text = f"{value:.2f}"
    else:
        text = f"{value:.3f}"
    return f"{text} {unit}".rstrip()


class Sheet:
    def __init__(self, facts):
        self.facts = facts
        self.figures, self.curves, self.lines, self.notes = [], [], [], []

    def say(self, text=""):
        self.lines.append(text)
        progress.erase()
        print(text, flush=True)

    def part(self, name, what):
        self.current = name
        self.say(f"\n{name}: {what}")

    def note(self, text):
        self.notes.append(f"{self.current}: {text}")
        self.say(f"  note: {text}")

    def figure(self, name, values, unit="", goal=None, better="lower", why=""):
        """`values`: one a round. `goal`: ("<=" or ">=" or "<" or "=", number). `why` is told where the
        goal is missed."""
        values = [float(value) for value in (values if isinstance(values, (list, tuple)) else [values])]
        median = statistics.median(values)
        met = None if goal is None else judge(median, *goal)
        self.figures.append({
            "part": self.current, "name": name, "unit": unit, "better": better, "median": median,
            "rounds": [round(value, 6) for value in values], "goal": goal, "met": met,
            "why": "" if met is not False else why})
        spread = ""
        if len(values) > 1:
            spread = f"{number(min(values))} to {number(max(values))} in {len(values)}"
        text = f"  {name:<66} {number(median, unit):>14}   {spread:<26}"
        if goal is not None:
            text += f" goal {goal[0]} {number(goal[1], unit):<12} {'met' if met else 'MISSED'}"
        self.say(text.rstrip())
        return median

    def unmeasured(self, name, goal, why):
        self.figures.append({
            "part": self.current, "name": name, "unit": "", "better": "lower", "median": None,
            "rounds": [], "goal": goal, "met": False, "why": why})
        self.say(f"  {name:<66} {'-':>14}   {'':<26} goal {goal[0]} {number(goal[1])}  MISSED: {why}")

    def ratio(self, name, ours, theirs, goal=None, better="lower", why=""):
        """Round by round, so that what disturbs a whole round disturbs both sides."""
        ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
        return self.figure(name, ratios, "x", goal, better, why)

    def curve(self, name, x, y, lines, log_x=True, log_y=False):
        """`lines`: {label: [[x, y], …]}; kept as numbers and drawn."""
        self.curves.append({
            "part": self.current, "name": name, "x": x, "y": y, "lines": lines,
            "log_x": log_x, "log_y": log_y})

    def latency_curve(self, name, histograms):
        """`histograms`: {label: [(microseconds, count), …]}"""
        lines = {label: picture.percentiles(it) for label, it in histograms.items()}
        self.curve(name, "percentile", "ms", lines, log_y=True)
        self.curves[-1]["ticks"] = picture.NINES

    def bars(self, name, unit, lines):
        """A bar for each name, of parts: {name: [[part, value], …]}"""
        self.curve(name, "", unit, lines)
        self.curves[-1]["bars"] = True

    def table(self, x, columns, rows):
        """Rows of numbers: `rows` is {x: [value, …]}."""
        labels = {key: f"{key:,}" if isinstance(key, int) else str(key) for key in rows}
        first = max(map(len, [x, *labels.values()]))
        widths = [max(12, len(name) + 3) for name in columns]
        self.say("    " + f"{x:<{first}}" + "".join(
            f"{name:>{width}}" for name, width in zip(columns, widths, strict=True)))
        for key, values in rows.items():
            self.say("    " + f"{labels[key]:<{first}}" + "".join(
                f"{number(value):>{width}}" for value, width in zip(values, widths, strict=True)))

    def missed(self):
        return [it for it in self.figures if it["met"] is False]

    def goals(self):
        judged = [it for it in self.figures if it["met"] is not None]
        if not judged:
            return
        self.say(f"\nGoals: {len(judged) - len(self.missed())} of {len(judged)} met")
        for it in judged:
            goal = f"{it['goal'][0]} {number(it['goal'][1], it['unit'])}"
            self.say(f"  {'met   ' if it['met'] else 'MISSED'} {it['part'] + ': ' + it['name']:<84}"
                     f" {number(it['median'], it['unit']):>12}   goal {goal}")
            if it["why"]:
                self.say(f"         {it['why']}")

    def store(self, folder):
        """table.txt, figures.json and a picture for each curve."""
        os.makedirs(folder, exist_ok=True)
        with open(f"{folder}/table.txt", "w") as file:
            file.write("\n".join(self.lines).lstrip("\n") + "\n")
        with open(f"{folder}/figures.json", "w") as file:
            rows = ",\n".join("  " + json.dumps(it) for it in self.figures)
            curves = ",\n".join("  " + json.dumps(it) for it in self.curves)
            file.write(f'{{"facts": {json.dumps(self.facts, indent=1)},\n"notes": '
                       f'{json.dumps(self.notes, indent=1)},\n"figures": [\n{rows}\n],\n'
                       f'"curves": [\n{curves}\n]}}\n')
        for curve in self.curves:
            name = f"{curve['part']}-{curve['name']}".replace(" ", "-").replace("/", "-")
            with open(f"{folder}/{name}.svg", "w") as file:
                file.write(picture.bars(curve) if curve.get("bars") else picture.chart(curve))


def judge(value, relation, goal):
    if math.isnan(value):
        return False
    return {"<=": value <= goal, ">=": value >= goal, "<": value < goal, "=": value == goal}[relation]
