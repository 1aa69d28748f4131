"""Charts are images that any page can hold: whole in themselves, and the same for the same numbers."""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ElementTree

import numpy as np

from vqtok.report.charts import Line, bar_chart, line_chart

SVG = "{http://www.w3.org/2000/svg}"


def chart() -> str:
    lines = [Line("training", range(20), np.exp(-np.arange(20) / 5)), Line("held out", [5, 19], [0.5, 0.1])]
    return line_chart('error "a" <b>', lines, x_label="step", y_label="error", log=True, levels={"floor": 0.05})


def drawing(element: str) -> str:
    """The SVG that an image element holds."""
    image = ElementTree.fromstring(element.replace(">", "/>"))
    kind, _, data = image.attrib["src"].partition(",")
    assert image.tag == "img" and kind == "data:image/svg+xml;base64"
    return base64.b64decode(data).decode()


def test_a_chart_is_an_image_that_holds_a_drawing_and_says_what_it_shows() -> None:
    assert 'alt="error &quot;a&quot; &lt;b&gt;"' in chart()
    for text in (chart(), bar_chart("use", np.arange(5.0), x_label="code", y_label="share", levels={"even": 2})):
        root = ElementTree.fromstring(drawing(text))
        assert root.tag == f"{SVG}svg" and root.get("viewBox")


def test_a_line_is_drawn_for_each_name_and_a_dashed_one_for_a_level() -> None:
    drawn = drawing(chart())
    assert drawn.count("stroke: #3b7dd8") == 2 and drawn.count("stroke: #e0702c") >= 2  # on the axes and in the legend
    assert drawn.count("stroke-dasharray") == 1
    for word in ("training", "held out", "step", "floor"):
        assert f"<!-- {word} -->" in drawn  # which matplotlib writes over the outlines of the letters


def test_nothing_is_asked_of_the_network() -> None:
    addresses = re.findall(r'(?:href|src)="([^"]+)"|url\(([^)]+)\)', drawing(chart()))
    assert addresses and all((one or other).startswith("#") for one, other in addresses)


def test_the_same_numbers_give_the_same_chart() -> None:
    assert chart() == chart()


def test_bars_are_as_high_as_their_values() -> None:
    text = drawing(bar_chart("use", np.array([4.0, 2.0, 1.0]), x_label="code", y_label="share"))
    path = max(re.findall(r'<path d="([^"]+)" clip-path', text), key=lambda d: d.count("L"))  # the outline of all bars
    points = [tuple(map(float, pair)) for pair in re.findall(r"([\d.]+) ([\d.]+)", path)]
    heights = sorted({y for _, y in points})
    floor = heights[-1]
    assert np.allclose([floor - y for y in heights[:-1]], np.array([4, 2, 1]) * (floor - heights[0]) / 4)
