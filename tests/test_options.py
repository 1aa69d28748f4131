"""How options are declared, checked and explained, on made-up options."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

import pytest
from pydantic import AfterValidator, Field, model_validator

from vqtok.errors import ConfigurationError
from vqtok.options import Allowed, DefaultText, Options, Setting, Types, setting, settings_of


def is_even(number: int) -> int:
    if number % 2:
        raise ValueError(f"take {number + 1}")
    return number


class ShapeOptions(Options):
    section = "shape"

    type: str


class RoundOptions(ShapeOptions):
    type: Literal["round"] = "round"
    radius: float = Field(1.0, gt=0, description="in pixels")
    softness: float = Field(0.5, ge=0, lt=1, description="of the rim")


class FlatOptions(ShapeOptions):
    type: Literal["flat"] = "flat"
    sides: list[Annotated[int, Field(ge=3, le=9)]] = Field([3, 4], description="of each polygon")
    colour: Literal["black", "white"] = Field("black", description="of all of them")


class PairOptions(ShapeOptions):
    type: Literal["pair"] = "pair"
    each: Annotated[ShapeOptions, Types({"flat": FlatOptions, "round": RoundOptions}, default="flat")] = Field(
        FlatOptions(), description="both of them"
    )


SHAPES = Types({"flat": FlatOptions, "pair": PairOptions, "round": RoundOptions}, default="round")


class Drawing(Options):
    name: str = Field(description="of the file")
    format: str = Field(description="of the file, too")
    number: int = Field(1, ge=1, le=8, description="of shapes")
    even: Annotated[int, AfterValidator(is_even), Allowed("an even number")] = Field(2, description="even")
    least: int | None = Field(None, ge=1, description="at least that many")
    quick: bool = Field(False, description="whether to hurry")
    share: float = Field(0.5, gt=0, lt=1, description="of ink")
    shape: Annotated[ShapeOptions, SHAPES] = Field(RoundOptions(), description="what is drawn")

    @model_validator(mode="after")
    def _few_pairs(self) -> Self:
        if self.shape.type == "pair" and self.number > 2:
            raise ValueError(f"number must be at most 2 where shape=pair, got {self.number}")
        return self


def draw(**values: Any) -> Drawing:
    return Drawing(**({"name": "a", "format": "png"} | values))


def test_what_is_left_out_has_its_default_and_a_word_stands_for_a_type() -> None:
    assert draw().model_dump()["shape"] == {"type": "round", "radius": 1.0, "softness": 0.5}
    assert draw(shape="flat").shape == FlatOptions() == draw(shape={"type": "flat"}).shape
    assert draw(shape={"radius": 3}).shape == RoundOptions(radius=3.0) == draw(shape=RoundOptions(radius=3.0)).shape
    assert draw(shape={"type": "pair", "each": "round"}).shape == PairOptions(each=RoundOptions())
    assert draw(shape={"type": "pair", "each": {"sides": [5]}}).shape == PairOptions(each=FlatOptions(sides=[5]))


def test_a_whole_number_stands_for_a_number_and_nothing_else_for_anything() -> None:
    radius = draw(shape={"radius": 3}).model_dump()["shape"]["radius"]
    assert (radius, type(radius)) == (3.0, float)
    for name, wrong in {"number": [True, 2.0, "2", None], "quick": [1, "true", None], "name": [3, None, b"a"]}.items():
        for value in wrong:
            with pytest.raises(ConfigurationError, match=f"^{name} must be "):
                draw(**{name: value})
    for value in (True, "1", None, [1.0], 10**400):
        with pytest.raises(ConfigurationError, match="^shape.radius must be a number above 0, got "):
            draw(shape={"radius": value})
    for value in ((3, 4), {3: 4}, {3, 4}, "34", 3, [3, True], [3, 4.0], [3, None]):
        with pytest.raises(
            ConfigurationError, match="^shape.sides must be a list, each a whole number from 3 to 9, got"
        ):
            draw(shape={"type": "flat", "sides": value})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"number": 0}, "number must be a whole number from 1 to 8, got 0"),
        ({"even": 3}, "even must be an even number, got 3: take 4"),
        ({"even": "x"}, "even must be an even number, got 'x'"),
        ({"least": 0}, "least must be a whole number of at least 1 or null, got 0"),
        ({"quick": "yes"}, "quick must be true or false, got 'yes'"),
        ({"share": 1}, "share must be a number above 0 and below 1, got 1"),
        ({"share": float("nan")}, "share must be a number above 0 and below 1 and finite, got nan"),
        ({"share": float("inf")}, "share must be a number above 0 and below 1 and finite, got inf"),
        ({"nam": "a"}, "'nam' is not a configuration key. Did you mean 'name'?"),
        ({"width": 1}, "'width' is not a configuration key"),
        ({"radius": 1}, "'radius' is not a configuration key. Did you mean 'shape.radius'?"),
        ({"sides": 1}, "'sides' is not a configuration key. Did you mean 'shape.sides'?"),
        ({"softnes": 1}, "'softnes' is not a configuration key. Did you mean 'shape.softness'?"),
        ({"a.b": 1}, "'a.b' is not a configuration key"),
        ({"cls": 1, "self": 2}, "'cls' is not a configuration key"),
        ({"number": 9, "shape": "squar", "quick": 0}, "number must be a whole number from 1 to 8, got 9"),
        ({"shape": 3}, "shape must be the name of a type or key: value entries, got 3"),
        ({"shape": None}, "shape must be the name of a type or key: value entries, got None"),
        ({"shape": "roun"}, "shape.type must be one of flat, pair, round, got 'roun'. Did you mean 'round'?"),
        ({"shape": {"type": "{x}"}}, "shape.type must be one of flat, pair, round, got '{x}'"),
        ({"shape": {"type": []}}, "shape.type must be one of flat, pair, round, got []"),
        ({"shape": {"type": None}}, "shape.type must be one of flat, pair, round, got None"),
        (
            {"shape": {"radus": 1}},
            "shape.radus is not an option of shape.type 'round', which has radius, softness. Did you mean 'radius'?",
        ),
        ({"shape": {7: 3}}, "shape.7 is not an option of shape.type 'round', which has radius, softness"),
        ({"shape": {"a.b": 3}}, "shape.a.b is not an option of shape.type 'round', which has radius, softness"),
        (
            {"shape": {"\x1b[2J\n": 3}},
            r"shape.\x1b[2J\n is not an option of shape.type 'round', which has radius, softness",
        ),
        (
            {"shape": {"type": "flat", "sides": [3, 2]}},
            "shape.sides must be a list, each a whole number from 3 to 9, got [3, 2]",
        ),
        (
            {"shape": {"type": "flat", "colour": "whit"}},
            "shape.colour must be one of black, white, got 'whit'. Did you mean 'white'?",
        ),
        (
            {"shape": {"type": "pair", "sides": [3]}},
            "shape.sides is not an option of shape.type 'pair', which has each. Did you mean 'shape.each.sides'?",
        ),
        ({"shape": {"type": "pair", "each": "pair"}}, "shape.each.type must be one of flat, round, got 'pair'"),
        (
            {"shape": {"type": "pair", "each": 1}},
            "shape.each must be the name of a type or key: value entries, got 1",
        ),
        (
            {"shape": {"type": "pair", "each": {"type": "round", "radius": 0}}},
            "shape.each.radius must be a number above 0, got 0",
        ),
        (
            {"shape": {"type": "pair", "each": {"radius": 1}}},
            "shape.each.radius is not an option of shape.each.type 'flat', which has sides, colour",
        ),
        ({"shape": "pair", "number": 3}, "number must be at most 2 where shape=pair, got 3"),
        ({"name": 200 * "a", "format": 3}, "format must be text, got 3"),
        ({"number": 200 * "a"}, f"number must be a whole number from 1 to 8, got '{96 * 'a'}..."),
    ],
)
def test_what_makes_no_sense_is_one_line_with_the_whole_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        draw(**values)
    assert str(caught.value) == message
    assert caught.value.__cause__ is None and caught.value.__context__ is None


def test_all_that_must_be_given_is_named_at_once() -> None:
    with pytest.raises(ConfigurationError, match="^name, format must be given$"):
        Drawing()
    with pytest.raises(ConfigurationError, match="^format must be given$"):
        Drawing(name="a", width=3)


def test_options_constructed_alone_are_named_by_their_section() -> None:
    for wrong, message in (
        ({"radius": -1}, "shape.radius must be a number above 0, got -1"),
        ({"type": "flat"}, "shape.type must be round, got 'flat'"),
        ({"sides": 3}, "shape.sides is not an option of shape.type 'round', which has radius, softness"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            RoundOptions(**wrong)
        assert str(caught.value) == message
    with pytest.raises(ConfigurationError, match="^shape.each.radius must be a number above 0, got -1$"):
        PairOptions(each={"type": "round", "radius": -1})


def test_entries_name_one_of_the_types() -> None:
    assert SHAPES.entries("flat") == {"type": "flat"}
    assert SHAPES.entries({"radius": 3}) == {"type": "round", "radius": 3}
    assert SHAPES.entries(FlatOptions(sides=[5])) == {"type": "flat", "sides": [5], "colour": "black"}
    for wrong, message in (
        ({"type": "oval"}, "shape.type must be one of flat, pair, round, got 'oval'"),
        ({"type": ["flat"]}, "shape.type must be one of flat, pair, round, got ['flat']. Did you mean 'flat'?"),
        (3, "shape must be the name of a type or key: value entries, got 3"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            SHAPES.entries(wrong)
        assert str(caught.value) == message


def test_options_share_nothing_that_can_change() -> None:
    given = {"type": "flat", "sides": [5]}
    one, other = draw(shape=given), draw(shape=given)
    one.model_dump()["shape"]["sides"].append(7)
    one.shape.sides.append(7)  # type: ignore[attr-defined]
    assert other.shape == FlatOptions(sides=[5]) and given["sides"] == [5]
    FlatOptions().sides.append(7)
    assert FlatOptions().sides == [3, 4]


def test_settings_say_what_is_declared() -> None:
    assert list(settings_of(RoundOptions, "shape.")) == [
        Setting(
            name="shape.radius",
            type=float,
            allowed="a number above 0",
            default=1.0,
            required=False,
            description="in pixels",
        ),
        Setting(
            name="shape.softness",
            type=float,
            allowed="a number of at least 0 and below 1",
            default=0.5,
            required=False,
            description="of the rim",
        ),
    ]
    found = {item.name: (item.type, item.allowed, item.default, item.required) for item in settings_of(Drawing)}
    assert found == {
        "name": (str, "text", None, True),
        "format": (str, "text", None, True),
        "number": (int, "a whole number from 1 to 8", 1, False),
        "even": (int, "an even number", 2, False),
        "least": (int, "a whole number of at least 1 or null", None, False),
        "quick": (bool, "true or false", False, False),
        "share": (float, "a number above 0 and below 1", 0.5, False),
        "shape": (str, "one of flat, pair, round", "round", False),
    }


def test_a_default_may_be_said_in_words_and_names_may_be_a_list() -> None:
    class Listing(Options):
        entry = "an option of listing"

        names: Annotated[tuple[str, ...] | None, DefaultText("all names")] = Field(None, description="what is listed")

    item = setting(Listing, "names")
    assert (item.type, item.default, item.default_text) == (tuple, None, "all names")
    assert item.allowed == "a list, each text or null" and setting(Drawing, "number").default_text == ""
    assert Listing(names=("a", "b")).names == ("a", "b")
    with pytest.raises(ConfigurationError, match=r"^names must be a list, each text or null, got \('a', 1\)$"):
        Listing(names=("a", 1))
    with pytest.raises(ConfigurationError, match="^'nams' is not an option of listing. Did you mean 'names'?"):
        Listing(nams=())


def test_one_setting_by_its_name() -> None:
    assert setting(Drawing, "number").default == 1
    assert (setting(Drawing, "shape.radius").name, setting(Drawing, "shape.radius").default) == ("shape.radius", 1.0)
    assert setting(Drawing, "shape.colour").allowed == "one of black, white"
    assert (setting(Drawing, "shape.each").default, setting(Drawing, "shape.each.sides").default) == ("flat", [3, 4])
    assert setting(Drawing, "shape.each.radius").name == "shape.each.radius"
    for wrong in ("width", "shape.width", "number.x", "shape.each.each"):
        with pytest.raises(KeyError):
            setting(Drawing, wrong)
