"""Opening a model from wherever it is: a folder, a hub, an organism, or memory."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from prosect.core.errors import BadInput, UnsafeFile
from prosect.core.progress import say
from prosect.core.registries import ORGANISMS
from prosect.model.inputs import Inputs
from prosect.model.model import Model

ORGANISM = "organism:"
PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".bin.index.json")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
)
_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?$")


def load(
    ref: str | os.PathLike[str] | nn.Module,
    inputs: Inputs | None = None,
    tokenizer: Any | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    seed: int = 0,
) -> Model:
    """Open a model.

    Args:
        ref: a folder in Hugging Face's format, a hub id, ``organism:NAME``, or a module in memory.
        inputs: what to open it with: a dict of tensors by forward keyword, a tensor, or a Batch. Needed for
            modules that do not say what they read.
        tokenizer: for text; by default the one in the folder, if it has one.
        device: ``auto`` takes a GPU if there is one, and leaves a module in memory where it is.
        dtype: by default float32 on a CPU, the checkpoint's own on a GPU, and a module in memory as it is.
        trust_remote_code: run code that comes with the model.
        allow_pickle: read weights that are stored as pickles.
        seed: for building an organism.

    Raises:
        BadInput: nothing is there, it is no model, or the hub cannot be reached.
        UnknownName: no such organism.
        UnsafeFile: it holds only pickled weights, or wants to run its own code, and that was not allowed.
    """
    kind = _dtype(dtype)
    if isinstance(ref, nn.Module):
        return _of_module(ref, inputs, tokenizer, device, kind)
    name = os.fspath(ref)
    if name.startswith(ORGANISM):
        return _organism(name.removeprefix(ORGANISM), device, kind, seed)
    folder = Path(name).expanduser()
    local = folder.exists()
    if not local and (not _HUB_ID.match(name) or isinstance(ref, os.PathLike)):
        raise BadInput(f"{name}, which does not exist", "a folder, a hub id, organism:NAME, or a module")
    if local:
        _check_folder(folder, allow_pickle)
    where = _chosen(device)
    return _pretrained(
        str(folder) if local else name,
        folder.resolve().name if local else name,
        local,
        inputs,
        tokenizer,
        where,
        kind,
        trust_remote_code,
        allow_pickle,
    )


def _of_module(
    module: nn.Module, inputs: Inputs | None, tokenizer: Any | None, device: str | torch.device, dtype: Any
) -> Model:
    if str(device) != "auto" or dtype is not None:
        module.to(device=None if str(device) == "auto" else _chosen(device), dtype=dtype)
    return Model.of(module, inputs=inputs, tokenizer=tokenizer)


def _organism(name: str, device: str | torch.device, dtype: torch.dtype | None, seed: int) -> Model:
    model: Model = ORGANISMS.get(name)(seed)[0]
    if str(device) == "auto" and dtype is None:
        return model
    module = model.module.to(device=None if str(device) == "auto" else _chosen(device), dtype=dtype)
    return Model.of(module, model.name, model.example.to(_device_of(module)), model.tokenizer)


def _device_of(module: nn.Module) -> torch.device:
    return next((p.device for p in module.parameters()), torch.device("cpu"))


def _chosen(device: str | torch.device) -> torch.device:
    """The device that ``auto`` stands for here, said aloud.

    Raises:
        BadInput: no such device.
    """
    if str(device) == "auto":
        mps = torch.backends.mps.is_available()
        found = torch.device("cuda" if torch.cuda.is_available() else "mps" if mps else "cpu")
        say(f"device: {found}")
        return found
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise BadInput(f"device {device!r}", "auto, cpu, cuda, cuda:0, mps ...") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise BadInput(f"device {device!r} on a machine without CUDA", "auto or cpu")
    return found


def _dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    found = getattr(torch, dtype.removeprefix("torch."), None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise BadInput(f"dtype {dtype!r}", "float32, bfloat16, float16 or float64")
    return found


def _check_folder(folder: Path, allow_pickle: bool) -> None:
    """Whether a folder holds a model that may be read.

    Raises:
        BadInput: it is no folder, or has no configuration or no weights.
        UnsafeFile: its weights are pickles, or its index leads out of it.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder}, which is a file", "a folder in Hugging Face's format")
    files = sorted(path.name for path in folder.iterdir())
    if "config.json" not in files:
        raise BadInput(
            f"{folder} without config.json", "a folder in Hugging Face's format", "save_pretrained"
        )
    safe = [name for name in files if name.endswith(".safetensors")]
    pickled = [name for name in files if name.endswith(PICKLED)]
    if not safe and not pickled:
        raise BadInput(f"{folder} without weights", "model.safetensors beside config.json")
    if not safe and not allow_pickle:
        raise UnsafeFile(
            f"pickled weights {', '.join(pickled[:3])} in {folder}, which can run code when they are read",
            "safetensors",
            "saving them again with save_pretrained, or allow_pickle=True if you trust them",
        )
    for index in (name for name in files if name.endswith(".index.json")):
        try:
            shards = list(json.loads((folder / index).read_text())["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadInput(f"{index}, which is no index of weights", "weight_map: weight → file") from error
        outside = [shard for shard in shards if Path(str(shard)).name != shard]
        if outside:
            raise UnsafeFile(
                f"{outside[0]!r} in {index}, which leads out of its folder", "names of files in it"
            )


def _pretrained(
    place: str,
    name: str,
    local: bool,
    inputs: Inputs | None,
    tokenizer: Any | None,
    device: torch.device,
    dtype: torch.dtype | None,
    trust_remote_code: bool,
    allow_pickle: bool,
) -> Model:
    from safetensors import SafetensorError
    from transformers import AutoTokenizer, PretrainedConfig

    try:
        raw, _ = PretrainedConfig.get_config_dict(place, local_files_only=local)
    except (OSError, ValueError) as error:
        raise _unreachable(place, local, error) from error
    if raw.get("auto_map") and not trust_remote_code:
        raise UnsafeFile(
            f"{name}, which comes with its own code ({_short(raw['auto_map'])})",
            "a model that transformers has the code of",
            "trust_remote_code=True if you trust it, or taking auto_map out of its config.json",
        )
    wanted = torch.float32 if dtype is None and device.type == "cpu" else (dtype or "auto")
    options: dict[str, Any] = {"local_files_only": local, "trust_remote_code": trust_remote_code}
    safe = None if allow_pickle else True
    try:
        with _silent():
            module, info = _class_for(raw, place, options).from_pretrained(
                place, dtype=wanted, use_safetensors=safe, output_loading_info=True, **options
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        if not local and not allow_pickle and "safetensors" in str(error):
            raise UnsafeFile(
                f"{name} without safetensors", "safetensors", "allow_pickle=True if you trust its pickles"
            ) from error
        raise _unreachable(place, local, error) from error
    absent = sorted(info["missing_keys"]) + sorted(str(key[0]) for key in info["mismatched_keys"])
    if absent:
        raise BadInput(
            f"{name} without weights that fit {', '.join(absent[:3])} ({len(absent)} in all)",
            "every weight that its configuration asks for",
            "the configuration that the weights were saved with",
        )
    if tokenizer is None and (not local or any((Path(place) / f).exists() for f in TOKENIZER_FILES)):
        try:
            tokenizer = AutoTokenizer.from_pretrained(place, **options)
        except (OSError, ValueError, KeyError, TypeError) as error:
            if local:
                raise BadInput(
                    f"a tokenizer in {place} that cannot be read ({_short(error)})",
                    "files that transformers' AutoTokenizer reads",
                    "tokenizer=..., or taking its files out",
                ) from error
            say(f"{name} has no tokenizer that can be read: text will not do, token ids will")
    return Model.of(module.to(device), name, inputs, tokenizer)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without transformers' own progress bars, which would break up ours."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _class_for(raw: dict[str, Any], place: str, options: dict[str, Any]) -> Any:
    """The class that the configuration names, else the automatic one for causal models, else for any."""
    import transformers

    named = next(iter(raw.get("architectures") or []), None)
    found = getattr(transformers, named, None) if named and not raw.get("auto_map") else None
    if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
        return found
    config = transformers.AutoConfig.from_pretrained(place, **options)
    causal = type(config) in transformers.MODEL_FOR_CAUSAL_LM_MAPPING
    remote = "AutoModelForCausalLM" in (raw.get("auto_map") or {})
    return transformers.AutoModelForCausalLM if causal or remote else transformers.AutoModel


def _unreachable(place: str, local: bool, error: Exception) -> BadInput:
    if local:
        return BadInput(
            f"{place}, which transformers cannot open ({_short(error)})", "a complete model folder"
        )
    return BadInput(
        f"{place}, which is neither a folder here nor a model the hub gives ({_short(error)})",
        "a folder, or the id of a model that can be downloaded or was before",
        "the id's spelling, the network, or HF_HUB_OFFLINE",
    )


def _short(what: object) -> str:
    return " ".join(str(what).split())[:160]
