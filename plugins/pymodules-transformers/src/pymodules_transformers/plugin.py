"""The hook of this package. It imports neither torch nor transformers: listing stays fast."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import attrs

from pymodules_core import DiscoveryContext, ModuleSpec, hookimpl
from pymodules_core.errors import SettingsError
from pymodules_core.plugin_api import resolve_inside
from pymodules_transformers.settings import ModelSettings, Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["ModelFactory", "Settings", "provide_module"]


@hookimpl
def provide_module(context: DiscoveryContext) -> Iterator[ModuleSpec]:
    """Provide the models that the experiment's settings name; none without settings."""
    settings: Settings = context.settings
    for name, model in settings.modules.items():
        yield ModuleSpec(
            name=name,
            factory=ModelFactory(model, context, f"{context.settings_key}.modules.{name}"),
            settings={"frozen": model.frozen},
            weights=model.folder or "",
            description=f"{model.model or model.folder}, {model.head}, of transformers.",
        )


@attrs.frozen
class ModelFactory:
    """Builds one model when the pool is built.

    Attributes:
        settings: What to build.
        context: Whose data home holds its folder.
        key: Dotted path of the settings, for messages.
    """

    settings: ModelSettings
    context: DiscoveryContext
    key: str

    def __call__(self) -> "PreTrainedModel":
        """Build the model.

        Raises:
            SettingsError: No such model type, head or config field.
            InvalidNameError: A link leads out of the data home.
            CheckpointError: The folder is not there, damaged, or its weights do not fit.
            BuildError: transformers cannot make the model.
        """
        # Here and not above: torch and transformers take seconds, and a listing builds nothing.
        from pymodules_transformers.folder import ModelFolder  # noqa: PLC0415
        from pymodules_transformers.models import make_model  # noqa: PLC0415

        folder = None
        if self.settings.folder is not None:
            home, key = self.context.data_home, f"{self.key}.folder"
            path = resolve_inside(home, "module_ckps", self.settings.folder, kind=key)
            folder = ModelFolder(path, root=home, key=key)
        try:
            return make_model(self.settings, folder=folder, key=self.key)
        except SettingsError as error:
            raise self.context.locate(error) from error.__cause__
