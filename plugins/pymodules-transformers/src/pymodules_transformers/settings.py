"""``[plugins.settings.transformers]``: which models join the pool, and what each is made of."""

from typing import Any, Literal, TypeAlias

import attrs

from pymodules_core.errors import InvalidNameError, SettingsError
from pymodules_core.plugin_api import check_module_name, check_path_name

Head: TypeAlias = Literal[
    "base",
    "pretraining",
    "causal-lm",
    "masked-lm",
    "seq2seq-lm",
    "sequence-classification",
    "token-classification",
    "question-answering",
    "multiple-choice",
    "image-classification",
    "masked-image-modeling",
    "object-detection",
    "semantic-segmentation",
    "universal-segmentation",
    "depth-estimation",
    "video-classification",
    "image-text-to-text",
    "audio-classification",
    "speech-seq2seq",
    "ctc",
]


@attrs.frozen(kw_only=True)
class ModelSettings:
    """One model.

    Attributes:
        model: Model type of transformers, such as ``"gpt2"``; its weights begin random.
        folder: Instead of ``model``: a folder in ``<data home>/module_ckps/`` with ``config.json``
            and weights, as ``save_pretrained`` writes it.
        head: What the model ends in: one of transformers' Auto classes.
        config: Fields of the model's config that differ from its defaults, or from the folder's.
        new_weights: Patterns over weights that the folder may lack, or have in another shape; they
            begin random.
        unused_weights: Patterns over weights of the folder that the model has no place for.
        dtype: Of the weights, whatever the folder holds.
        attn_implementation: How attention is computed; None leaves the choice to transformers.
        frozen: As the module setting of that name.

    Raises:
        SettingsError: Not exactly one of ``model`` and ``folder``, or patterns without a folder.
    """

    model: str | None = None
    folder: str | None = None
    head: Head = "base"
    config: dict[str, Any] = attrs.field(factory=dict)
    new_weights: tuple[str, ...] = ()
    unused_weights: tuple[str, ...] = ()
    dtype: Literal["float32", "bfloat16"] = "float32"
    attn_implementation: Literal["eager", "sdpa"] | None = None
    frozen: bool = False

    def __attrs_post_init__(self) -> None:
        if self.model is None and self.folder is None:
            raise SettingsError(
                "neither model nor folder is given",
                fix='write a model type, model = "gpt2", or a folder in module_ckps/',
            )
        if self.model is not None and self.folder is not None:
            raise SettingsError(
                f"both model {self.model!r} and folder {self.folder!r} are given",
                key="model",
                fix="remove model: config.json in the folder says what it is",
            )
        if self.folder is None and (self.new_weights or self.unused_weights):
            key = "new_weights" if self.new_weights else "unused_weights"
            raise SettingsError(
                "is given without folder, and all weights begin random",
                key=key,
                fix=f"remove {key}, or name the folder that the weights come from",
            )


@attrs.frozen(kw_only=True)
class Settings:
    """``[plugins.settings.transformers]``.

    Attributes:
        modules: Module name to its model.

    Raises:
        SettingsError: A name is none for a module, or a folder's leads out of ``module_ckps/``.
    """

    modules: dict[str, ModelSettings] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        for name, model in self.modules.items():
            key = f"modules.{name}"
            try:
                check_module_name(name)
                if model.folder is not None:
                    key += ".folder"
                    check_path_name(model.folder, kind="folder")
            except InvalidNameError as error:
                raise SettingsError(
                    error.what, key=key, found=error.found, fix=error.fix
                ) from error
