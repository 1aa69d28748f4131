"""What decides a baseline: its images, networks and likelihood, and the options of its method, which `model` holds."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field

from vqtok.errors import ConfigurationError, shortened
from vqtok.losses import LIKELIHOOD_TYPES, LIKELIHOODS, Likelihood, LikelihoodOptions
from vqtok.losses.logistic import LogisticOptions
from vqtok.options import Options, Types
from vqtok.pretrained import ImageModelConfig, ImageModelOptions

__all__ = ["BaselineConfig", "BaselineOptions", "MethodOptions"]


LIKELIHOODS_HERE = Types(LIKELIHOOD_TYPES.kinds, default="logistic")


class MethodOptions(Options):
    """What the options of every method have: its name, as `type`."""

    section = "model"
    needs_likelihood: ClassVar[bool] = True
    """Whether p(x | z) must be a distribution, so that the rate and the distortion are of one unit."""
    needs_classes: ClassVar[bool] = False

    type: str

    def check_likelihood(self, likelihood: LikelihoodOptions) -> None:
        """Refuse a reconstruction loss that is no likelihood where the method is a probability of images.

        Raises:
            ConfigurationError: says which are.
        """
        if self.needs_likelihood and not issubclass(LIKELIHOODS[likelihood.type][1], Likelihood):
            names = [name for name, (_, loss) in LIKELIHOODS.items() if issubclass(loss, Likelihood)]
            raise ConfigurationError(
                f"likelihood {likelihood.type} gives no probabilities, and {self.type} is trained with a bound on "
                f"those of images: set likelihood to one of {', '.join(names)}"
            )


class BaselineOptions(ImageModelOptions):
    """What is saved with every baseline beside its method."""

    likelihood: Annotated[LikelihoodOptions, LIKELIHOODS_HERE] = Field(
        LogisticOptions(), description="what the decoder gives for each pixel: a distribution, or with mse a value"
    )


class SavedOptions(BaselineOptions):
    """What config.json holds beside the method, which each configuration checks as its own."""

    label_names: Annotated[list[str], Field(min_length=1)] | None = Field(
        None, description="names of the classes that the model is conditioned on, in the order of their numbers"
    )
    model: Any = Field(None, description="method and its options")


class BaselineConfig(ImageModelConfig):
    """Configuration of a baseline; each method has a subclass, whose `model_type` says which.

    Args:
        image_size, num_channels, resample, network: as of a tokenizer, see `VQTokenizerConfig`.
        likelihood: `{"type": "logistic"}` or another of vqtok.losses.
        model: `{"type": "vae", "beta": 1.0, ...}` with options of the method.
        label_names: names of the classes, for a method that is conditioned on them.

    Raises:
        ConfigurationError: an unknown key, a value of the wrong type or out of range, a likelihood or classes that the
            method does not go with.
    """

    options = SavedOptions
    called = "baseline"
    method: ClassVar[type[MethodOptions]]

    likelihood: Any = None
    label_names: Any = None
    model: Any = None

    def __post_init__(self, **kwargs: Any) -> None:
        super().__post_init__(**kwargs)
        chosen = self.chosen
        self.model = chosen.model_dump()
        chosen.check_likelihood(BaselineOptions(likelihood=self.likelihood).likelihood)
        if chosen.needs_classes != (self.label_names is not None):
            needed = "needs label_names, the names of its classes" if chosen.needs_classes else "takes no label_names"
            raise ConfigurationError(f"a model of type {chosen.type} {needed}, got {shortened(self.label_names)}")

    @property
    def chosen(self) -> Any:
        """The options of the method."""
        name = self.method.model_fields["type"].default
        return self.method(**Types({name: self.method}, default=name).entries(self.model or {}))
