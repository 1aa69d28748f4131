"""What decides a tokenizer's networks and its preprocessing; saved with the weights as config.json."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from vqtok.hub import provenance_of
from vqtok.losses import LIKELIHOOD_TYPES, LikelihoodOptions, MSEOptions
from vqtok.pretrained import ImageModelConfig, ImageModelOptions
from vqtok.quantizers import QUANTIZER_TYPES, QuantizerOptions
from vqtok.quantizers.ema import EMAOptions

__all__ = ["TokenizerOptions", "VQTokenizerConfig"]


class TokenizerOptions(ImageModelOptions):
    """What is saved with a tokenizer."""

    quantizer: Annotated[QuantizerOptions, QUANTIZER_TYPES] = Field(
        EMAOptions(), description="method that turns latents into codes"
    )
    likelihood: Annotated[LikelihoodOptions, LIKELIHOOD_TYPES] = Field(
        MSEOptions(), description="what the decoder is trained for: mse, or the likelihood of the pixels"
    )


class VQTokenizerConfig(ImageModelConfig):
    """Configuration of a VQTokenizer.

    Args:
        image_size: height and width in pixels that images are brought to before they are tokenized; one number
            stands for both.
        num_channels: 1 for grey, 3 for RGB; images need one of these, tensors may have any number.
        resample: how images are resized: a filter (bicubic, bilinear, lanczos, nearest), or the way of a published
            tokenizer, see `vqtok.data.recipes`.
        network: `{"type": "conv", ...}` with options of vqtok.networks.
        quantizer: `{"type": "ema", ...}` with options of vqtok.quantizers.
        likelihood: `{"type": "mse"}` or another of vqtok.losses, whose mean makes the images; it decides no code.
        provenance: where converted weights come from, the fields of `vqtok.hub.Provenance`.

    Values are those of `TokenizerOptions`. What is left out is filled with defaults, so that a saved configuration
    says everything.

    Raises:
        ConfigurationError: an unknown key, a value of the wrong type or out of range.
        CheckpointError: a damaged provenance.
    """

    model_type = "vqtok"
    options = TokenizerOptions
    called = "tokenizer"

    quantizer: Any = None
    likelihood: Any = None
    provenance: Any = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        if origin := provenance_of({"provenance": self.provenance}, name="config.json"):
            self.provenance = origin.model_dump()

    def to_dict(self) -> dict[str, Any]:
        """As transformers gives it; most tokenizers have no provenance, and say nothing of it."""
        values = super().to_dict()
        if values["provenance"] is None:
            del values["provenance"]
        return values
