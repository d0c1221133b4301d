"""Builds a model: a config, the class for its head, and weights, random or of a folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel

from pymodules_core.errors import (
    BuildError,
    PymodulesError,
    SettingsError,
    closest_match,
    list_words,
)
from pymodules_core.plugin_api import structure
from pymodules_transformers.configs import config_of_file, config_of_type
from pymodules_transformers.folder import CONFIG_NAME, ModelFolder
from pymodules_transformers.loading import check_fit
from pymodules_transformers.quiet import quiet_and_offline
from pymodules_transformers.settings import ModelSettings

if TYPE_CHECKING:
    from collections.abc import Callable

HEADS = {
    "base": "AutoModel",
    "pretraining": "AutoModelForPreTraining",
    "causal-lm": "AutoModelForCausalLM",
    "masked-lm": "AutoModelForMaskedLM",
    "seq2seq-lm": "AutoModelForSeq2SeqLM",
    "sequence-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
    "multiple-choice": "AutoModelForMultipleChoice",
    "image-classification": "AutoModelForImageClassification",
    "masked-image-modeling": "AutoModelForMaskedImageModeling",
    "object-detection": "AutoModelForObjectDetection",
    "semantic-segmentation": "AutoModelForSemanticSegmentation",
    "universal-segmentation": "AutoModelForUniversalSegmentation",
    "depth-estimation": "AutoModelForDepthEstimation",
    "video-classification": "AutoModelForVideoClassification",
    "image-text-to-text": "AutoModelForImageTextToText",
    "audio-classification": "AutoModelForAudioClassification",
    "speech-seq2seq": "AutoModelForSpeechSeq2Seq",
    "ctc": "AutoModelForCTC",
}
"""Head to the Auto class of transformers."""

_FUNCTION = "build_model"


def build_model(
    model: str | None = None,
    /,
    *,
    folder: str | Path | None = None,
    head: str = "base",
    new_weights: tuple[str, ...] | list[str] = (),
    unused_weights: tuple[str, ...] | list[str] = (),
    dtype: str = "float32",
    attn_implementation: str | None = None,
    **config: Any,
) -> PreTrainedModel:
    """Build a model in one line of a module file.

    Such as ``module = build_model("gpt2", head="causal-lm", n_layer=2)``.

    Args:
        model: Model type of transformers; its weights begin random, drawn from torch's stream.
        folder: Instead of ``model``: path of a folder that ``save_pretrained`` wrote.
        head: A key of ``HEADS``.
        new_weights: Patterns over weights that the folder may lack; they begin random.
        unused_weights: Patterns over weights of the folder that the model has no place for.
        dtype: ``"float32"`` or ``"bfloat16"``, whatever the folder holds.
        attn_implementation: ``"eager"`` or ``"sdpa"``; None leaves the choice to transformers.
        **config: Fields of the model's config.

    Returns:
        The model in train mode, on the CPU.

    Raises:
        SettingsError: An argument, model type, head or config field is not valid.
        CheckpointError: The folder is not there, damaged, or its weights do not fit.
        BuildError: transformers cannot make the model.
    """
    given = {
        "model": model,
        "folder": None if folder is None else str(folder),
        "head": head,
        "config": config,
        "new_weights": new_weights,
        "unused_weights": unused_weights,
        "dtype": dtype,
        "attn_implementation": attn_implementation,
    }
    settings = structure(given, ModelSettings, root=_FUNCTION)
    where = None
    if settings.folder is not None:
        where = ModelFolder(Path(settings.folder), root=None, key=f"{_FUNCTION}.folder")
    return make_model(settings, folder=where, key=_FUNCTION)


def make_model(settings: ModelSettings, *, folder: ModelFolder | None, key: str) -> PreTrainedModel:
    """Build a model from checked settings.

    Args:
        settings: What to build.
        folder: The folder that the settings name; None where they name a model type.
        key: Dotted path of the settings, for messages.

    Returns:
        The model in train mode, on the CPU.

    Raises:
        SettingsError: No such model type, head or config field.
        CheckpointError: The folder is not there, damaged, or its weights do not fit.
        BuildError: transformers cannot make the model.
    """
    with quiet_and_offline():
        if folder is None:
            config = config_of_type(str(settings.model), settings.config, key=key)
            model = _from_config(config, settings, key=key)
        else:
            content = folder.read_config()
            file = folder.path / CONFIG_NAME
            config = config_of_file(content, settings.config, file=file, key=key)
            model = _from_folder(config, settings, folder, key=key)
    if settings.head == "causal-lm" and getattr(model, "loss_type", None) is None:
        # transformers reads it off the class's name, knows no "GPT2LMHeadModel", and warns of it in
        # the first step; this is the loss it then takes.
        model.loss_type = "ForCausalLM"
    # As every module begins; from_pretrained gives them in eval mode.
    model.train()
    return model


def _from_config(config: PreTrainedConfig, settings: ModelSettings, *, key: str) -> PreTrainedModel:
    auto = getattr(transformers, HEADS[settings.head])
    if type(config) not in auto._model_mapping:
        raise _no_head_error(config, settings, key=key)
    try:
        model: PreTrainedModel = auto.from_config(
            config,
            dtype=getattr(torch, settings.dtype),
            attn_implementation=settings.attn_implementation,
            trust_remote_code=False,
        )
    # The model's own code: sizes that do not divide, a package that is missing.
    except Exception as error:
        raise _build_error(config, error, key=key) from error
    return model


def _from_folder(
    config: PreTrainedConfig, settings: ModelSettings, folder: ModelFolder, *, key: str
) -> PreTrainedModel:
    # Without memory for weights: it only says which class the Auto class chooses.
    with torch.device("meta"):
        skeleton = _from_config(config, settings, key=key)
    weights = folder.read_weights()
    model: PreTrainedModel
    info: dict[str, Any]
    # from_pretrained is annotated as if it gave the model alone.
    load: Callable[..., Any] = type(skeleton).from_pretrained
    try:
        # The path is None, so that nothing but these weights is looked for, here or on the hub.
        model, info = load(
            None,
            config=skeleton.config,
            state_dict=weights,
            dtype=getattr(torch, settings.dtype),
            attn_implementation=settings.attn_implementation,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
    except Exception as error:
        raise _build_error(config, error, key=key) from error
    check_fit(model, info, settings, folder=folder.path, key=key)
    # What it was loaded from is nobody's business; None became the text "None".
    model.config.name_or_path = ""
    generation = folder.read_generation_config()
    if generation is not None and model.can_generate():
        model.generation_config = GenerationConfig.from_dict(generation)
    return model


def _build_error(config: PreTrainedConfig, error: Exception, *, key: str) -> PymodulesError:
    return BuildError(
        f"{key}: transformers cannot make a {config.model_type} of this config: "
        f"{type(error).__name__}: {' '.join(str(error).split())}",
        key=key,
        fix="install the package that it names"
        if isinstance(error, ImportError)
        else "change the fields of config that it names",
    )


def _no_head_error(config: PreTrainedConfig, settings: ModelSettings, *, key: str) -> SettingsError:
    fitting = [
        head
        for head, name in HEADS.items()
        if type(config) in getattr(transformers, name)._model_mapping
    ]
    return SettingsError(
        f"{key}.head: a {config.model_type} has no head {settings.head!r}; it has: "
        f"{list_words(fitting)}",
        key=f"{key}.head",
        found=settings.head,
        closest=closest_match(settings.head, fitting),
        fix="take one of them, or a model type that has it",
    )
