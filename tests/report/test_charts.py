"""Charts are elements that fit into any page: own identifiers, no outside references, ink of the page's colour."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import numpy as np

from vqtok.report.charts import INK, Line, bar_chart, line_chart


def chart() -> str:
    lines = [Line("training", range(20), np.exp(-np.arange(20) / 5)), Line("held out", [5, 19], [0.5, 0.1])]
    return line_chart("error", lines, x_label="step", y_label="error", log=True, levels={"floor": 0.05})


def test_a_chart_is_one_well_formed_element() -> None:
    for text in (chart(), bar_chart("use", np.arange(5.0), x_label="code", y_label="share", levels={"even": 2})):
        root = ElementTree.fromstring(text)
        assert root.tag == "svg" and root.get("width") is None and root.get("viewBox")


def test_everything_that_is_named_is_written_as_text() -> None:
    words = {element.text for element in ElementTree.fromstring(chart()).iter("text")}
    assert {"training", "held out", "step", "error", "floor"} <= words


def test_identifiers_carry_the_name_and_references_find_them() -> None:
    text = chart()
    identifiers = set(re.findall(r'\bid="([^"]+)"', text))
    assert identifiers and all(name.startswith("error-") for name in identifiers)
    references = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text))
    assert {one or other for one, other in references} <= identifiers


def test_nothing_is_asked_of_the_network_and_nothing_styles_the_page() -> None:
    text = chart()
    assert not re.search(r"https?:|<style|<script|<metadata", text)


def test_ink_and_fonts_are_those_of_the_page() -> None:
    text = chart()
    assert INK not in text and "currentColor" in text
    assert set(re.findall(r"font-family: ([^;\"]+)", text)) == {"inherit"}


def test_the_same_numbers_give_the_same_chart() -> None:
    assert chart() == chart()


def test_bars_are_as_high_as_their_values() -> None:
    text = bar_chart("use", np.array([4.0, 2.0, 1.0]), x_label="code", y_label="share")
    path = max(re.findall(r'<path d="([^"]+)"', text), key=lambda d: d.count("L"))  # the outline of all bars
    points = [tuple(map(float, pair)) for pair in re.findall(r"([\d.]+) ([\d.]+)", path)]
    heights = sorted({y for _, y in points})
    floor = heights[-1]
    assert np.allclose([floor - y for y in heights[:-1]], np.array([4, 2, 1]) * (floor - heights[0]) / 4)
