"""Values as they are given, by examples and by what holds for all of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from vqtok.assignments import merge, nest, parse_assignment, read_yaml, read_yaml_text, write_yaml_text
from vqtok.errors import ConfigurationError, shortened

names = st.sampled_from(["a", "b", "c"])
leaves = st.one_of(st.integers(), st.booleans(), st.none(), st.lists(st.integers(), max_size=2))
sections = st.recursive(
    st.dictionaries(names, leaves, max_size=3),
    lambda inner: st.dictionaries(names, st.one_of(leaves, inner), max_size=3),
    max_leaves=8,
)


def shaped(depth: int) -> st.SearchStrategy[dict[str, Any]]:
    """Sections that have one shape, so that no value stands where another has a section; none names a type."""
    inner = {"s": shaped(depth - 1), "t": shaped(depth - 1)} if depth else {}
    return st.fixed_dictionaries({}, optional={"x": leaves, "y": leaves, **inner})


def flattened(values: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """One pair for each value, sections as dots; an empty section as itself."""
    pairs: list[tuple[str, Any]] = []
    for name, value in values.items():
        inside = isinstance(value, dict) and value
        pairs += flattened(value, f"{prefix}{name}.") if inside else [(prefix + name, value)]
    return pairs


@pytest.mark.parametrize(
    ("pairs", "nested"),
    [
        ([], {}),
        ([("steps", 3)], {"steps": 3}),
        ([("steps", 3), ("steps", 4)], {"steps": 4}),
        ([("quantizer.beta", 1), ("quantizer", "vq")], {"quantizer": {"beta": 1, "type": "vq"}}),
        ([("quantizer", "vq"), ("quantizer.beta", 1)], {"quantizer": {"type": "vq", "beta": 1}}),
        ([("quantizer", "vq"), ("quantizer", "ema")], {"quantizer": "ema"}),
        ([("q.beta", 1), ("q", {"decay": 2})], {"q": {"beta": 1, "decay": 2}}),
        ([("q", {"each.beta": 1}), ("q.each", "vq")], {"q": {"each": {"beta": 1, "type": "vq"}}}),
        ([("q.each.beta", 1), ("q.each.type", "vq")], {"q": {"each": {"beta": 1, "type": "vq"}}}),
        ([("q", "vq"), ("q", {"beta": 1})], {"q": {"type": "vq", "beta": 1}}),
        ([("q", {})], {"q": {}}),
        ([("q.beta", 1), ("q", None)], {"q": None}),
        ([(7, 3), ("q", {8: 4})], {"7": 3, "q": {"8": 4}}),
    ],
)
def test_nest_by_examples(pairs: list[tuple[Any, Any]], nested: dict[str, Any]) -> None:
    assert nest(pairs) == nested


def test_what_is_no_section_has_no_entries() -> None:
    for pairs in ([("steps", 3), ("steps.x", 1)], [("q", {"beta": [1]}), ("q.beta.x", 1)]):
        with pytest.raises(ConfigurationError, match="^'.*x' is not a configuration key: (steps|beta) has no entries$"):
            nest(pairs)


@given(sections)
def test_nest_of_what_was_flattened_gives_it_back(values: dict[str, Any]) -> None:
    assert nest(flattened(values)) == values
    assert nest(values.items()) == values


@pytest.mark.parametrize(
    ("values", "update", "merged"),
    [
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": 1}, {"a": 2}, {"a": 2}),
        ({"q": {"type": "vq", "beta": 1}}, {"q": {"decay": 2}}, {"q": {"type": "vq", "beta": 1, "decay": 2}}),
        ({"q": {"type": "vq", "beta": 1}}, {"q": {"type": "vq"}}, {"q": {"type": "vq", "beta": 1}}),
        ({"q": {"type": "vq", "beta": 1}}, {"q": "vq"}, {"q": {"type": "vq", "beta": 1}}),
        ({"q": {"type": "vq", "beta": 1}}, {"q": "ema"}, {"q": {"type": "ema"}}),
        ({"q": {"type": "vq", "beta": 1}}, {"q": {"type": "ema", "decay": 2}}, {"q": {"type": "ema", "decay": 2}}),
        ({"q": {"type": "vq"}}, {"q": 5}, {"q": 5}),
        (
            {"q": {"type": "p", "n": 4, "each": {"type": "vq", "beta": 1}}},
            {"q": {"each": {"type": "ema"}}},
            {"q": {"type": "p", "n": 4, "each": {"type": "ema"}}},
        ),
    ],
)
def test_merge_by_examples(values: dict[str, Any], update: dict[str, Any], merged: dict[str, Any]) -> None:
    before = repr((values, update))
    assert merge(values, update) == merged
    assert repr((values, update)) == before


@given(shaped(2), shaped(2), shaped(2))
def test_merge_is_associative_where_no_type_changes(
    one: dict[str, Any], two: dict[str, Any], three: dict[str, Any]
) -> None:
    assert merge(merge(one, two), three) == merge(one, merge(two, three))
    assert merge(one, {}) == merge({}, one) == merge(one, one) == one


@given(shaped(2), shaped(2))
def test_what_is_merged_last_stands(one: dict[str, Any], two: dict[str, Any]) -> None:
    merged = merge(one, two)
    after, before = dict(flattened(two)), dict(flattened(one))
    values = {name: value for name, value in flattened(merged) if value != {}}
    assert values == {name: value for name, value in (before | after).items() if value != {}}


@pytest.mark.parametrize(
    ("assignment", "name", "value"),
    [
        ("steps=3", "steps", 3),
        (" steps = 3", "steps", 3),
        ("a=b=c", "a", "b=c"),
        ("a=", "a", None),
        ("a=''", "a", ""),
        ("a={b: [1, 2]}", "a", {"b": [1, 2]}),
        ("rate=1e-3", "rate", 1e-3),
        ("rate=-1E+3", "rate", -1000.0),
        ("rate=.5e1", "rate", 5.0),
        ("rate=1.e2", "rate", 100.0),
        ("rate='1e-3'", "rate", "1e-3"),
        ("rate=1e-3x", "rate", "1e-3x"),
        ("rate=e3", "rate", "e3"),
        ("on=yes", "on", True),
        ("on=off", "on", False),
        ("rate=.inf", "rate", math.inf),
    ],
)
def test_a_value_is_read_as_yaml(assignment: str, name: str, value: Any) -> None:
    found = parse_assignment(assignment)
    assert found == (name, value)
    assert type(found[1]) is type(value)


@pytest.mark.parametrize("assignment", ["steps", "=3", " =3", ""])
def test_what_assigns_nothing_is_refused(assignment: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_assignment(assignment)
    assert str(caught.value) == (f"--set takes key=value, such as quantizer.codebook_size=1024, got {assignment!r}")


@pytest.mark.parametrize(
    "text",
    [
        *("[1", "{a: b: c}", "!!python/object/apply:os.getcwd []", "2020-13-45", "9" * 5000, "\x00"),
        *('!!int ""', "!!bool x", "!!timestamp x", "[" * 5000, "&a {type: ema, x: *a}", "&a [*a]"),
    ],
    ids=lambda text: text[:30],
)
def test_what_is_not_yaml_is_one_line_in_a_setting_and_in_a_file(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is not YAML: ") as caught:
        parse_assignment(f"steps={text}")
    assert "\n" not in str(caught.value)
    (tmp_path / "bad.yaml").write_text(f"steps: {text}\n")
    with pytest.raises(ConfigurationError, match="cannot read the configuration .*bad.yaml: ") as caught:
        read_yaml(tmp_path / "bad.yaml")
    assert "\n" not in str(caught.value)


def test_a_file_holds_key_value_lines(tmp_path: Path) -> None:
    path = tmp_path / "some.yaml"
    path.write_text("steps: 1_000\nrate: 1e-3\n7: 8\n")
    assert read_yaml(path) == {"steps": 1000, "rate": 1e-3, "7": 8}
    for text, kind in (("- steps", "list"), ("steps", "str"), ("", "NoneType")):
        path.write_text(text)
        with pytest.raises(ConfigurationError, match=f"must hold key: value lines, found {kind}$"):
            read_yaml(path)
    path.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ConfigurationError, match="cannot read the configuration"):
        read_yaml(path)
    with pytest.raises(ConfigurationError, match="cannot read the configuration .*none.yaml: .*No such file"):
        read_yaml(tmp_path / "none.yaml")


texts = st.one_of(st.text(max_size=8), st.from_regex(r"[-+]?[0-9.]{1,4}[eE][-+]?[0-9]{1,3}", fullmatch=True))
numbers = st.floats(allow_nan=False)
values = st.dictionaries(texts, st.one_of(texts, numbers, leaves, st.lists(texts), st.dictionaries(texts, numbers)))


@given(values)
def test_what_is_written_is_read_the_same(values: dict[str, Any]) -> None:
    found = read_yaml_text(write_yaml_text(values))
    assert found == values
    assert repr(found) == repr(values)  # their types and their order, too


def test_other_programs_read_the_same_of_what_is_common() -> None:
    values = {"steps": 3, "rate": 0.001, "name": "1e3", "on": True, "none": None, "list": [1, 2], "in": {"a": "no"}}
    assert yaml.safe_load(write_yaml_text(values)) == values


def test_no_aliases_are_written_and_none_are_read() -> None:
    same = [1, 2]
    text = write_yaml_text({"a": same, "b": same})
    assert "&" not in text and read_yaml_text(text) == {"a": same, "b": same}
    for text in ("a: &x [1]\nb: *x\n", "a: &x {c: 1}\nb: {<<: *x}\n"):
        with pytest.raises(yaml.YAMLError, match="^an alias in line 2: write the value itself there$"):
            read_yaml_text(text)


def test_of_a_huge_value_only_the_beginning_is_written() -> None:
    bomb: list[object] = ["x"]
    for _ in range(12):
        bomb = [bomb] * 10
    assert shortened(bomb) == ("[[[" + ", ".join(["[...]"] * 10) + "], [" + ", ".join(["[...]"] * 10))[:97] + "..."
    assert shortened(list(range(30))) == str(list(range(30)))[:97] + "..."
    assert shortened("ab" * 10**6) == "'" + "ab" * 48 + "..."
