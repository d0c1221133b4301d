"""Makes a model's config: from its type or from ``config.json``, with the user's fields on top."""

import dataclasses
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers
from transformers import CONFIG_MAPPING, PreTrainedConfig

from pymodules_core.errors import CheckpointFileError, SettingsError, closest_match, list_words

# Fields of every config that nobody chooses there: settings of their own, or notes of a save.
_OWN_SETTINGS = {
    "dtype": "dtype",
    "torch_dtype": "dtype",
    "attn_implementation": "attn_implementation",
}
_NOTES = frozenset({"architectures", "name_or_path", "return_dict", "transformers_version"})
# What encoder-decoders read off a config whose class has no such field.
_UNDECLARED = ("decoder_start_token_id",)
# Of config.json: what would make transformers fetch code, or choose kernels of the hub.
_NEVER_READ = frozenset({"auto_map", "attn_implementation", "experts_implementation"})
_TYPE = "model_type"
_QUANTIZATION = "quantization_config"
_FAMOUS = "bert, gpt2, llama, vit"
_MOST_SHOWN = 8


def config_of_type(model_type: str, fields: Mapping[str, Any], *, key: str) -> PreTrainedConfig:
    """Make the config of a model type, with its defaults but for some fields.

    Args:
        model_type: A key of ``transformers.CONFIG_MAPPING``, such as ``"gpt2"``.
        fields: Field to value.
        key: Dotted path of the model's settings, for messages.

    Raises:
        SettingsError: No such type or field, or a value that the config refuses.
    """
    if model_type not in CONFIG_MAPPING:
        near = closest_match(model_type, CONFIG_MAPPING.keys())
        raise SettingsError(
            f"{key}.model: transformers {transformers.__version__} has no model type "
            f"{model_type!r}",
            key=f"{key}.model",
            found=model_type,
            closest=near,
            fix=None
            if near
            else "take a key of transformers.CONFIG_MAPPING: bert, gpt2, llama, vit …",
        )
    config_class: type[PreTrainedConfig] = CONFIG_MAPPING[model_type]
    return _make(config_class, {}, fields, key=key)


def config_of_file(
    content: Mapping[str, Any], fields: Mapping[str, Any], *, file: Path, key: str
) -> PreTrainedConfig:
    """Make the config that a ``config.json`` describes, with some fields replaced.

    Args:
        content: What the file holds.
        fields: Field to value.
        file: The file, for messages.
        key: Dotted path of the model's settings, for messages.

    Raises:
        CheckpointFileError: The file names no model type that is known, or quantised weights.
        SettingsError: No such field, or a value that the config refuses.
    """
    model_type = content.get(_TYPE)
    if not isinstance(model_type, str) or model_type not in CONFIG_MAPPING:
        brings_code = " and code of its own, which is never run" if "auto_map" in content else ""
        raise CheckpointFileError(
            f"{_TYPE} is {model_type!r}{brings_code}; transformers {transformers.__version__} "
            "has no such type",
            file=file,
            found=model_type,
            fix="take a folder of a model that is part of transformers, or a newer transformers",
        )
    if content.get(_QUANTIZATION) is not None:
        raise CheckpointFileError(
            f"{_QUANTIZATION} is given: the weights are quantised, and cannot be trained or saved",
            file=file,
            key=_QUANTIZATION,
            fix="take a folder of the weights before they were quantised",
        )
    config_class: type[PreTrainedConfig] = CONFIG_MAPPING[model_type]
    kept = {name: value for name, value in content.items() if name not in _NEVER_READ}
    if "num_labels" in fields:
        # They follow from one another, and the labels would win.
        kept = {name: kept[name] for name in kept if name not in {"id2label", "label2id"}}
    return _make(config_class, kept, fields, key=key)


def _make(
    config_class: type[PreTrainedConfig],
    content: Mapping[str, Any],
    fields: Mapping[str, Any],
    *,
    key: str,
) -> PreTrainedConfig:
    _check_fields(config_class, fields, key=f"{key}.config")
    # By their own names: of two names of one field the general one would win, wherever it is from.
    fields = {config_class.attribute_map.get(name, name): fields[name] for name in fields}
    try:
        return config_class(**{**content, **fields})
    # Each config has checks of its own; they raise ValueError, TypeError, and what a slip raises.
    except Exception as error:
        raise SettingsError(
            f"{key}.config: {config_class.__name__} refuses it: {' '.join(str(error).split())}",
            key=f"{key}.config",
            found=dict(fields),
            fix="give values that fit together",
        ) from error


def _check_fields(
    config_class: type[PreTrainedConfig], fields: Mapping[str, Any], *, key: str
) -> None:
    for name, value in fields.items():
        if name in _OWN_SETTINGS:
            raise SettingsError(
                f"{key}.{name}: is not a field of the config here",
                key=f"{key}.{name}",
                found=name,
                fix=f"write {_OWN_SETTINGS[name]} beside config",
            )
        _refuse_unknown(config_class, name, key=key)
        if isinstance(value, Mapping) and (inner := _config_class_of(config_class, name, value)):
            given = {key: value[key] for key in value if key != _TYPE}
            _check_fields(inner, given, key=f"{key}.{name}")


def _refuse_unknown(config_class: type[PreTrainedConfig], name: str, *, key: str) -> None:
    known = _field_names(config_class)
    if name in known:
        return
    near = closest_match(name, known)
    raise SettingsError(
        f"{key}.{name}: {config_class.__name__} has no such field; it has: "
        f"{list_words(known, most=_MOST_SHOWN)}",
        key=f"{key}.{name}",
        found=name,
        closest=near,
        fix=f"write {near!r} or remove {name!r}" if near else f"remove {name!r}",
    )


def _config_class_of(
    config_class: type[PreTrainedConfig], name: str, value: Mapping[str, Any]
) -> type[PreTrainedConfig] | None:
    """Return the class of a config within a config; None for a plain table, or one of any class."""
    inner = config_class.sub_configs.get(name)
    if inner is not None and value.get(_TYPE) in CONFIG_MAPPING:
        chosen: type[PreTrainedConfig] = CONFIG_MAPPING[value[_TYPE]]
        return chosen
    # AutoConfig stands for any class, and is none itself.
    return inner if isinstance(inner, type) and issubclass(inner, PreTrainedConfig) else None


def _field_names(config_class: type[PreTrainedConfig]) -> list[str]:
    """Return what may be set of a config: fields, those of this model first, and other names."""
    common = {field.name for field in dataclasses.fields(PreTrainedConfig)}
    names = [field.name for field in dataclasses.fields(config_class)]
    names.sort(key=lambda name: name in common)
    names += config_class.attribute_map
    # Such as num_labels, and out_features of a backbone.
    names += [
        name
        for name, value in inspect.getmembers_static(config_class)
        if isinstance(value, property) and value.fset is not None and not name.startswith("_")
    ]
    names += _UNDECLARED
    return [name for name in names if name not in _OWN_SETTINGS and name not in _NOTES]
