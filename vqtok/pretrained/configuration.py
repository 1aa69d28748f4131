"""What a model of images saves with its weights as config.json, refused where it says anything that it should not."""

from __future__ import annotations

import os
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field
from transformers import PreTrainedConfig

from vqtok.assignments import merge
from vqtok.data.fitting import check_resizing
from vqtok.data.recipes import RECIPES
from vqtok.errors import CheckpointError, ConfigurationError, did_you_mean
from vqtok.hub import check_settings
from vqtok.networks import NETWORK_TYPES, NetworkOptions
from vqtok.networks.conv import ConvOptions
from vqtok.options import Allowed, Options

__all__ = ["COVER", "ImageModelConfig", "ImageModelOptions", "ImageSize", "check_divisible"]

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

COVER = "shorter side, then centre crop, only when needed"
SERVICE = {"return_unused_kwargs", "_from_auto", "_from_pipeline"}  # what it passes to `from_dict` alone


def height_and_width(size: Any) -> Any:
    """One number as both."""
    return [size, size] if type(size) is int else size


ImageSize = Annotated[
    list[Annotated[int, Field(ge=1, le=2**16)]],
    Field(min_length=2, max_length=2),
    BeforeValidator(height_and_width),
    Allowed("[height, width] or one number of 1 to 65536 pixels"),
]


class ImageModelOptions(Options):
    """The images that a model takes, and its networks."""

    image_size: ImageSize = Field([32, 32], description="height and width of the images, in pixels")
    num_channels: int = Field(3, ge=1, description="channels of the images, 1 for grey and 3 for RGB")
    resample: Literal[
        "bicubic",
        "bilinear",
        "lanczos",
        "nearest",
        "center-crop-adm",
        "chameleon",
        "opencv-bilinear",
        "shorter-side-bicubic",
        "shorter-side-bilinear",
        "shorter-side-lanczos",
    ] = Field("bicubic", description="how images are resized: a filter, or the way of a published tokenizer")
    network: Annotated[NetworkOptions, NETWORK_TYPES] = Field(ConvOptions(), description="encoder and decoder")


class ImageModelConfig(PreTrainedConfig):
    """Configuration of a model of images, all of whose keys are known.

    A subclass declares the fields of its `options` as its own, each None until given. What is left out is filled with
    defaults, so that a saved configuration says everything.

    Raises:
        ConfigurationError: an unknown key, a value of the wrong type or out of range.
    """

    options: ClassVar[type[ImageModelOptions]] = ImageModelOptions
    """What it holds and how that is checked."""
    called: ClassVar[str] = "model"
    """What errors call a model of this kind."""

    image_size: Any = None
    num_channels: Any = None
    resample: Any = None
    network: Any = None

    def __post_init__(self, **kwargs: Any) -> None:
        own = self.options.model_fields
        for key in kwargs:
            if key not in INHERITED_KEYS:
                raise ConfigurationError(
                    f"{key!r} is not a key of a {self.model_type} configuration, which has {', '.join(own)}."
                    f"{did_you_mean(key, own)}"
                )
        super().__post_init__(**kwargs)
        given = {name: value for name in own if (value := getattr(self, name)) is not None}
        for name, value in self.options(**given).model_dump().items():
            setattr(self, name, value)
        check_divisible(*self.size, self.downsample_factor)
        check_resizing(self.resample, self.size)

    @classmethod
    def from_dict(cls, config_dict: dict[str, Any], **kwargs: Any) -> Any:
        """From what config.json says; keys that transformers would obey and this model has no use for are left out.

        Args:
            kwargs: instead of what config.json says, sections entry by entry. An unknown key is refused, or given back
                with `return_unused_kwargs`.

        Raises:
            CheckpointError: a key that could fetch or run code.
            ConfigurationError: an unknown key, a value of the wrong type or out of range.
        """
        check_settings(config_dict, name="config.json")
        inherited = {*INHERITED_KEYS, *PreTrainedConfig.__dataclass_fields__}
        left_out = inherited - {"dtype", "torch_dtype", "model_type"}
        kept = {key: value for key, value in config_dict.items() if key not in left_out}
        own = cls.options.model_fields if kwargs.get("return_unused_kwargs") else kwargs.keys() - inherited - SERVICE
        given = {key: kwargs.pop(key) for key in own if key in kwargs}
        return super().from_dict(merge(kept, given), **kwargs)

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
            raise CheckpointError(f"{pretrained_model_name_or_path} holds no {cls.called}: its config.json {found}")
        return values, rest

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.image_size
        return height, width

    @property
    def downsample_factor(self) -> int:
        """Pixels a side for one position of the grid."""
        factor: int = self.network["downsample_factor"]
        return factor

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What is done to an image before it is encoded: enough to do the same elsewhere."""
        return {
            "image_size": list(self.size),
            "num_channels": self.num_channels,
            "resample": self.resample,
            "resize": f"as {self.resample}" if self.resample in RECIPES else COVER,
            "range": [-1, 1],
        }


def check_divisible(height: int, width: int, factor: int) -> None:
    """Refuse an image size that does not divide into a grid, naming the two nearest that do."""
    if height % factor == 0 and width % factor == 0 and min(height, width) > 0:
        return
    smaller = [max(factor, side // factor * factor) for side in (height, width)]
    larger = [max(factor, -(-side // factor) * factor) for side in (height, width)]
    near = " or ".join(dict.fromkeys(f"{high}x{wide}" for high, wide in (smaller, larger)))
    raise ConfigurationError(
        f"an image of {height}x{width} pixels does not divide by the downsample factor {factor}; "
        f"the nearest sizes that do: {near}"
    )
