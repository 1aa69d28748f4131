"""The base of all options, whose errors are one line in our words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from vqtok.errors import ConfigurationError
from vqtok.options.explanations import explain

__all__ = ["Options"]

if TYPE_CHECKING:  # pydantic does not export its metaclass
    from pydantic._internal._model_construction import ModelMetaclass
else:
    ModelMetaclass = type(BaseModel)


class _Explained(ModelMetaclass):
    """Whoever constructs options meets one line in our words, not a report of pydantic's."""

    def __call__(cls: Any, /, **values: Any) -> Any:
        try:
            return super().__call__(**values)
        except ValidationError as error:
            line = explain(error, cls, values)
        raise ConfigurationError("".join(char if char.isprintable() else repr(char)[1:-1] for char in line))


class Options(BaseModel, metaclass=_Explained):
    """A typed description of options. Values are checked strictly and cannot be set anew; unknown names are refused.

    Raises:
        ConfigurationError: an unknown option, a value of the wrong type or out of bounds, or values that do not go
            together; names the option as it is written in a configuration, such as `quantizer.beta`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    section: ClassVar[str] = ""  # where these options stand in a configuration
    entry: ClassVar[str] = "a configuration key"  # what an error calls one of these options
