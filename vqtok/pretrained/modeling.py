"""A model of images that is loaded from settings and safetensors alone, and refused where these do not fit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from vqtok.errors import ConfigurationError
from vqtok.hub import Kind, check_finite, check_fit, find_model, loading, quiet_transformers
from vqtok.pretrained.configuration import ImageModelConfig, check_divisible

__all__ = ["ImageModel"]

FETCHED_WITH = ("revision", "token", "cache_dir", "local_files_only")


class ImageModel(PreTrainedModel):
    """What a tokenizer and the baselines share.

    Shapes: pixel values (B, C, H, W) in [-1, 1], H and W divisible by the downsample factor.
    """

    config: ImageModelConfig
    config_class: type[ImageModelConfig]
    kind: ClassVar[Kind]
    """What errors call it, and a folder must hold."""
    main_input_name = "pixel_values"
    input_modalities = ["image"]
    supports_gradient_checkpointing = True  # of networks that have it; transformers says so of others

    def _init_weights(self, module: nn.Module) -> None:
        """Networks and quantizers fill themselves when they are built, and a checkpoint has to hold every tensor.

        transformers 5.23 passes over a module of ours that owns no tensor itself, such as a whole encoder, and would
        give the convolutions inside it a normal distribution with standard deviation 0.02.
        """

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the latent grid of an image of the configured size."""
        height, width = self.config.size
        return height // self.config.downsample_factor, width // self.config.downsample_factor

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What is done to an image before it is encoded, as JSON types."""
        return self.config.preprocessing

    def checked(self, pixel_values: Tensor) -> Tensor:
        """Pixel values in the model's type, refused unless they have its channels and divide into a grid."""
        if pixel_values.ndim != 4 or pixel_values.shape[1] != self.config.num_channels:
            raise ConfigurationError(
                f"pixel values must be (B, {self.config.num_channels}, H, W), got {tuple(pixel_values.shape)}"
            )
        check_divisible(pixel_values.shape[2], pixel_values.shape[3], self.config.downsample_factor)
        return pixel_values.to(self.dtype)

    def save_pretrained(self, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> None:
        """Write config.json and model.safetensors."""
        with quiet_transformers():
            super().save_pretrained(save_directory, *args, **kwargs)

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Self:  # type: ignore[override]
        """Load from a folder, a run folder or a Hub id; only safetensors are read. Arguments are those of transformers.

        Raises:
            CheckpointError: a folder without configuration or weights, a configuration that could fetch or run code, or
                weights that do not fit it or are not finite.
            ConfigurationError: a configuration that makes no sense.
            HubError: a repository or revision that cannot be read.
        """
        asked = {key: kwargs.pop(key) for key in FETCHED_WITH if key in kwargs}
        wanted_info = kwargs.pop("output_loading_info", False)
        model: Any
        info: dict[str, Any]
        with loading(f"a {cls.kind} from {name}"):
            folder = find_model(name, kind=cls.kind, **asked)
            with torch.device("meta"):
                check_fit(folder.tensors, cls(cls.config_class.from_pretrained(folder.path)), name=str(name))
            kwargs |= {"use_safetensors": True, "output_loading_info": True}
            loaded: Any = super().from_pretrained(folder.path, *args, **kwargs)
            model, info = loaded
        check_finite(model, name=str(name))
        local = Path(name).is_dir()
        model.repository, model.revision = (str(folder.path), None) if local else (str(name), folder.path.name)
        model.name_or_path = model.config.name_or_path = model.repository
        return (model, info) if wanted_info else model  # type: ignore[return-value]  # as transformers does

    repository: str | None = None
    """Folder or Hub id that the model was loaded from."""

    revision: str | None = None
    """Commit of the Hub repository that it was loaded from."""
