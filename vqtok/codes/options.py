"""How images are tokenized, as typed options: those of `tokenize_images`, `tokenize_dataset` and `vqtok tokenize`.

Some of them decide the codes and are kept in the plan of a codes folder, see `Request` in `plan.py`. The others say how
and where the work is done, and may differ from call to call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from vqtok.batches import MOST
from vqtok.data.fitting import WHITE, colour
from vqtok.data.views import Views
from vqtok.errors import ConfigurationError
from vqtok.options import Allowed, DefaultText, Options

__all__ = ["IMAGE_SHARD_ROWS", "SEED", "SHARD_ROWS", "SHARD_SIZE", "CodesOptions", "TokenizeOptions"]

SHARD_ROWS = 65_536
"""Rows of a shard. Of 16 x 16 codes they take 35 MB; a process can map about 60,000 files, so 10^9 rows need 16,667."""

IMAGE_SHARD_ROWS = 4096
"""Where the images themselves are kept: of 100 kB each a shard takes 400 MB, and three times that while it is made."""

SEED = "seed of random views"
SHARD_SIZE = "rows of a shard, the file that is made whole or not at all, and until then is in memory"


def listed(given: Any) -> Any:
    """A list of names as a tuple, which cannot be changed."""
    return tuple(given) if isinstance(given, Sequence) and not isinstance(given, str | bytes) else given


class CodesOptions(Options):
    """What decides the codes of a folder; who goes on with one must ask for the same."""

    entry: ClassVar[str] = "an option of tokenizing"

    split: Annotated[str | None, DefaultText("every split")] = Field(None, description="split to read")
    dataset_config: str | None = Field(None, description="configuration of the dataset, if it has several")
    image_column: str | None = Field(None, description="column of the images, if the dataset has several")
    revision: str | None = Field(None, description="branch, tag or commit of a dataset on the Hub")
    columns: Annotated[
        tuple[str, ...] | None,
        BeforeValidator(listed),
        Allowed("a list of names or null"),
        DefaultText("file names and labels; of metadata beside images all"),
    ] = Field(None, description="columns to keep beside the codes, or all for every one that holds no files")
    images: bool = Field(False, description="keep the encoded images themselves beside their codes")
    views: Annotated[str | None, DefaultText("one row an image, as the tokenizer itself crops it")] = Field(
        None,
        description="rows for several views of each image, which share its image_id: center (the image and its mirror "
        "image), ten-crop (corners and middle of a slightly larger image, and their mirror images) or random:K (K "
        "random crops, mirrored at random)",
    )
    background: Annotated[str, AfterValidator(colour), DefaultText("white")] = Field(
        WHITE, description="colour behind transparent images: a name, #rrggbb, or red,green,blue"
    )
    precision: Literal["float32", "bfloat16", "float16"] = Field(
        "float32", description="arithmetic of the encoder; less than float32 changes some codes"
    )
    batch_size: Annotated[int, Allowed(f"from 1 to {MOST:,}")] = Field(
        64, ge=1, le=MOST, description="images encoded at a time; of another number a few codes at near-ties may differ"
    )
    format: Literal["arrow", "parquet"] = Field(
        "arrow", description="what the shards are; load_from_disk reads arrow alone"
    )

    def model_post_init(self, context: Any) -> None:
        """Refuse views that do not exist, and a copy of each image beside every one of its views."""
        views = None if self.views is None else Views.parse(self.views)
        if views is not None and views.count > 1 and self.images:
            raise ConfigurationError(
                f"images cannot be kept beside the views {self.views}, each of which would bring a copy of its image: "
                "leave one of them out"
            )


class TokenizeOptions(CodesOptions):
    """Every option of tokenizing.

    Raises:
        ConfigurationError: an option that does not exist, a value that is not allowed, or options that do not go
            together.
    """

    seed: Annotated[int | None, DefaultText("0")] = Field(None, ge=0, description=SEED)
    shard_rows: Annotated[int | None, DefaultText(f"{SHARD_ROWS}; {IMAGE_SHARD_ROWS} where images are kept")] = Field(
        None, ge=1, description=SHARD_SIZE
    )
    streaming: bool = Field(False, description="read files of the Hub where they are, rather than download them")
    on_error: Literal["skip", "stop"] = Field(
        "skip", description="what to do with an image that cannot be read: leave it out, or stop"
    )
    max_bad_share: float = Field(
        0.05, ge=0, le=1, description="largest share of images that may be left out; past it the exit status is 3"
    )
    executor: Literal["local", "ray"] = Field(
        "local",
        description="where the work is done: on this machine, or on a Ray cluster whose machines all see the images "
        "and the codes folder",
    )
    num_processes: Annotated[int | None, DefaultText("1; with ray one for each GPU, or for each machine")] = Field(
        None,
        ge=1,
        description="processes that work side by side, on a GPU each where there are several; with ray, actors",
    )
    ray_address: Annotated[str | None, DefaultText("auto: the one that this machine belongs to")] = Field(
        None, description="Ray cluster: its address, or local for a new one on this machine"
    )
    ray_device: Annotated[
        Literal["cpu", "cuda"] | None,
        Allowed("cpu or cuda, which each actor of a Ray cluster has"),
        DefaultText("cuda if the cluster has any GPU, else cpu"),
    ] = Field(None, description="device of each actor on a Ray cluster")
    overwrite: bool = Field(False, description="replace what vqtok wrote to the codes folder before")

    @model_validator(mode="after")
    def _seed_of_random_views(self) -> Self:
        if self.seed is not None and (self.views is None or Views.parse(self.views).kind != "random"):
            views = self.views or "not asked for"
            raise ValueError(f"seed {self.seed} is for the views random:K, and they are {views}")
        return self

    @model_validator(mode="after")
    def _cluster_has_executor(self) -> Self:
        for name in ("ray_address", "ray_device"):
            if self.executor != "ray" and getattr(self, name) is not None:
                raise ValueError(f"{name} belongs to executor ray: leave it out, or pass that too")
        return self
