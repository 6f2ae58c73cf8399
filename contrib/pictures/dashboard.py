"""Draws the panels of contrib/prometheus/dashboard.json as SVG: asks Prometheus their queries over a span of time.

usage: dashboard.py URL BEGIN END    (seconds since 1970)
"""

import html
import json
import math
import pathlib
import re
import sys
import urllib.parse
import urllib.request

WIDTH, UNIT, GAP = 1200, 24, 8
STEP = 2
COLOURS = ["#7eb26d", "#eab839", "#6ed0e0", "#ef843c", "#e24d42", "#1f78c1", "#ba43a9", "#705da0"]


def ask(url, kind, **parameters):
    with urllib.request.urlopen(f"{url}/api/v1/{kind}?{urllib.parse.urlencode(parameters)}") as answer:
        return json.load(answer)["data"]["result"]


def query(target):
    return target["expr"].replace("$job", "wmgwd").replace("$__rate_interval", "15s")


def name(target, labels):
    text = target.get("legendFormat") or ""
    text = re.sub(r"\{\{ *(\w+) *\}\}", lambda found: labels.get(found.group(1), ""), text)
    return text or " ".join(value for key, value in sorted(labels.items()) if key not in ("__name__", "job"))


def short(value):
    for limit, factor, unit in ((1e-3, 1e6, "µ"), (1, 1e3, "m")):
        if 0 < abs(value) < limit:
            return f"{value * factor:.3g}{unit}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def text(x, y, words, size=12, colour="#d8d9da", anchor="start"):
    words = html.escape(words)
    return f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" fill="{colour}" text-anchor="{anchor}">{words}</text>'


def stat(panel, url, end, box):
    x, y, width, height = box
    values = ask(url, "query", query=query(panel["targets"][0]), time=end)
    value = short(float(values[0]["value"][1])) if values else "-"
    return [text(x + width / 2, y + height / 2 + 26, value, 34, "#7eb26d", "middle")]


def lines(panel, url, begin, end, box):
    x, y, width, height = box
    left, top, right, bottom = x + 48, y + 30, x + width - 12, y + height - 40
    series = []
    for target in panel["targets"]:
        for found in ask(url, "query_range", query=query(target), start=begin, end=end, step=STEP):
            points = [(float(time), float(value)) for time, value in found["values"]]
            points = [(time, value) for time, value in points if math.isfinite(value)]
            if points:
                series.append((name(target, found["metric"]), points))
    highest = max((value for _, points in series for _, value in points), default=0) or 1
    drawn = []
    for part in range(5):
        level = bottom - (bottom - top) * part / 4
        drawn.append(f'<path d="M{left} {level:.1f}H{right}" stroke="#2c3235"/>')
        drawn.append(text(left - 6, level + 4, short(highest * part / 4), 10, "#8e8e8e", "end"))
    for minute in range(int((end - begin) // 60) + 1):
        at = left + (right - left) * minute * 60 / (end - begin)
        anchor = "end" if at > right - 20 else "middle"
        drawn.append(text(at, bottom + 14, f"{minute} min", 10, "#8e8e8e", anchor))
    at = left
    for number, (label, points) in enumerate(series):
        colour = COLOURS[number % len(COLOURS)]
        path, before = "", None
        for index, (time, value) in enumerate(points):
            # What goes on as it was needs no point of its own.
            around = points[max(index - 1, 0) : index + 2]
            if len(around) == 3 and {value} == {it for _, it in around} and around[2][0] - around[0][0] <= 2 * STEP:
                before = time
                continue
            # A gap in what was scraped is one in the picture.
            move = "M" if before is None or time - before > 2 * STEP else "L"
            before = time
            across = left + (right - left) * (time - begin) / (end - begin)
            path += f"{move}{across:.1f} {bottom - (bottom - top) * value / highest:.1f}"
        drawn.append(f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        if at + 7 * len(label) < right:
            drawn.append(f'<rect x="{at:.0f}" y="{bottom + 24}" width="10" height="4" fill="{colour}"/>')
            drawn.append(text(at + 14, bottom + 30, label, 10))
            at += 30 + 6 * len(label)
    if not series:
        drawn.append(text((left + right) / 2, (top + bottom) / 2, "no data", 12, "#8e8e8e", "middle"))
    return drawn


def main():
    url, begin, end = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    source = pathlib.Path(__file__).parent.parent / "prometheus" / "dashboard.json"
    dashboard = json.loads(source.read_text())
    drawn, depth = [], 0
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        x, y = place["x"] * WIDTH / 24 + GAP / 2, place["y"] * UNIT + GAP / 2
        width, height = place["w"] * WIDTH / 24 - GAP, place["h"] * UNIT - GAP
        depth = max(depth, y + height + GAP / 2)
        drawn.append(f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}" rx="3" fill="#181b1f"/>')
        drawn.append(text(x + 10, y + 18, panel["title"], 13))
        box = (x, y, width, height)
        drawn += stat(panel, url, end, box) if panel["type"] == "stat" else lines(panel, url, begin, end, box)
    print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {depth:.0f}" width="{WIDTH}">')
    print("<title>The panels of the dashboard in a run of five minutes</title>")
    print(f'<rect width="{WIDTH}" height="{depth:.0f}" fill="#111217"/>')
    print('<g font-family="DejaVu Sans, Helvetica, sans-serif">', *drawn, "</g>", "</svg>", sep="\n")


main()
