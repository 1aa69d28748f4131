"""What decides a tokenizer's networks and its preprocessing; saved with the weights as config.json."""

# No `from __future__ import annotations` here: @strict checks no field whose annotation is text.
import os
from collections.abc import Callable, Mapping
from typing import Any

from huggingface_hub.dataclasses import strict
from transformers import PreTrainedConfig

from vqtok.errors import CheckpointError, ConfigurationError, did_you_mean
from vqtok.hub import check_settings
from vqtok.networks import network_options
from vqtok.quantizers import quantizer_options

__all__ = ["RESAMPLES", "VQTokenizerConfig"]

RESAMPLES = ("bicubic", "bilinear", "lanczos", "nearest")

OWN_KEYS = ("image_size", "num_channels", "resample", "network", "quantizer")

# What transformers itself passes to a configuration beside the fields that PreTrainedConfig declares.
INHERITED_KEYS = (
    "_commit_hash",
    "_name_or_path",
    "attn_implementation",
    "experts_implementation",
    "model_type",
    "name_or_path",
    "num_labels",
    "output_attentions",
    "torch_dtype",
)


@strict
class VQTokenizerConfig(PreTrainedConfig):
    """Configuration of a VQTokenizer.

    Args:
        image_size: height and width in pixels that images are brought to before they are tokenized; one number
            stands for both.
        num_channels: 1 for grey, 3 for RGB; images need one of these, tensors may have any number.
        resample: how images are resized, one of RESAMPLES.
        network: `{"type": "conv", ...}` with options of vqtok.networks.
        quantizer: `{"type": "ema", ...}` with options of vqtok.quantizers.

    What `network` and `quantizer` leave out is filled with defaults, so that a saved configuration says everything.

    Raises:
        ConfigurationError: an unknown key, a value of the wrong type or out of range.
    """

    model_type = "vqtok"

    image_size: int | list[int] | None = None
    num_channels: int = 3
    resample: str = "bicubic"
    network: dict[str, Any] | None = None
    quantizer: dict[str, Any] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        for key in kwargs:
            if key not in INHERITED_KEYS:
                raise ConfigurationError(
                    f"{key!r} is not a key of a vqtok configuration, which has {', '.join(OWN_KEYS)}."
                    f"{did_you_mean(key, OWN_KEYS)}"
                )
        super().__post_init__(**kwargs)
        size = 32 if self.image_size is None else self.image_size
        self.image_size = [size, size] if isinstance(size, int) else list(size)
        self.network = fill_options("network", self.network or {}, "conv", network_options)
        self.quantizer = fill_options("quantizer", self.quantizer or {}, "ema", quantizer_options)
        self.check()

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """From what config.json says; keys that transformers would obey and this model has no use for are left out.

        Raises:
            CheckpointError: a key that could fetch or run code.
        """
        check_settings(config_dict, name="config.json")
        left_out = {*INHERITED_KEYS, *PreTrainedConfig.__dataclass_fields__} - {"dtype", "torch_dtype", "model_type"}
        kept = {key: value for key, value in config_dict.items() if key not in left_out}
        return super().from_dict(kept, **kwargs)

    @classmethod
    def get_config_dict(
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """What config.json says. transformers would go on with defaults where there is none.

        Raises:
            CheckpointError: there is no config.json, or one of another kind of model.
        """
        values, rest = super().get_config_dict(pretrained_model_name_or_path, **kwargs)
        if values.get("model_type") != cls.model_type:
            found = f"is of a {values.get('model_type')!r} model" if values else "is missing"
            raise CheckpointError(f"{pretrained_model_name_or_path} holds no tokenizer: its config.json {found}")
        return values, rest

    def check(self) -> None:
        """Refuse what makes no sense across fields."""
        height, width = self.size
        if self.num_channels < 1:
            raise ConfigurationError(f"num_channels must be at least 1, got {self.num_channels}")
        if self.resample not in RESAMPLES:
            raise ConfigurationError(
                f"resample must be one of {', '.join(RESAMPLES)}, got {self.resample!r}."
                f"{did_you_mean(self.resample, RESAMPLES)}"
            )
        check_divisible(height, width, self.downsample_factor)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        if not isinstance(self.image_size, list) or len(self.image_size) != 2:
            raise ConfigurationError(f"image_size must be [height, width] or one number, got {self.image_size!r}")
        return self.image_size[0], self.image_size[1]

    @property
    def downsample_factor(self) -> int:
        """Pixels a side for one place of the grid."""
        assert self.network is not None
        factor: int = self.network["downsample_factor"]
        return factor

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What is done to an image before it is encoded: enough to do the same elsewhere."""
        return {
            "image_size": list(self.size),
            "num_channels": self.num_channels,
            "resample": self.resample,
            "resize": "shorter side, then centre crop, only when needed",
            "range": [-1, 1],
        }


def check_divisible(height: int, width: int, factor: int) -> None:
    """Refuse an image size that does not divide into a grid, naming the two nearest that do."""
    if factor < 1:
        raise ConfigurationError(f"network.downsample_factor must be a power of two, got {factor}")
    if height % factor == 0 and width % factor == 0 and min(height, width) > 0:
        return
    smaller = [max(factor, side // factor * factor) for side in (height, width)]
    larger = [max(factor, -(-side // factor) * factor) for side in (height, width)]
    near = " or ".join(dict.fromkeys(f"{high}x{wide}" for high, wide in (smaller, larger)))
    raise ConfigurationError(
        f"an image of {height}x{width} pixels does not divide by the downsample factor {factor}; "
        f"the nearest sizes that do: {near}"
    )


def fill_options(
    section: str, given: Mapping[str, Any] | str, default_type: str, options_of: Callable[[str], dict[str, Any]]
) -> dict[str, Any]:
    """Every option of the chosen type, those not given at their defaults; a word stands for its type alone.

    An option whose default is a section of the same kind, such as `each` of a product quantizer, is filled alike.
    """
    given = {"type": given} if isinstance(given, str) else given
    kind = given.get("type", default_type)
    try:
        options = options_of(kind)
    except ConfigurationError as error:  # which knows the outermost section alone
        raise ConfigurationError(str(error).replace(section.partition(".")[0], section, 1)) from None
    sections = [name for name, default in options.items() if isinstance(default, dict)]
    for name in sections:
        value = given.get(name, options[name])
        if not isinstance(value, Mapping | str):
            raise ConfigurationError(f"{section}.{name} must be a type or key: value entries, got {value!r}")
        options[name] = fill_options(f"{section}.{name}", value, options[name]["type"], options_of)
    for name, value in given.items():
        if name not in ("type", *sections, *options):
            inner = [key for key in sections if name in options[key]]
            meant = f" Did you mean '{section}.{inner[0]}.{name}'?" if inner else did_you_mean(str(name), options)
            raise ConfigurationError(
                f"{section}.{name} is not an option of {section}.type {kind!r}, "
                f"which has {', '.join(sorted(options))}.{meant}"
            )
        if name not in ("type", *sections):
            options[name] = as_type_of(f"{section}.{name}", value, options[name])
    return {"type": kind, **options}


def as_type_of(name: str, value: Any, default: Any) -> Any:
    """The value, refused unless it has the type of its default; an int may stand for a float."""
    if isinstance(default, float) and type(value) is int:
        return float(value)
    fits = type(value) is type(default)
    if fits and isinstance(value, list):
        fits = all(type(item) is type(default[0]) for item in value)
    if not fits:
        wanted = f"list of {type(default[0]).__name__}" if isinstance(default, list) else type(default).__name__
        raise ConfigurationError(f"{name} must be {wanted}, such as {default!r}, got {value!r}")
    return value
