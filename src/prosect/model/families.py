"""Small random networks of every architecture that transformers can build, so that opening can be tried on all.

A configuration is shrunk by what its fields are called (widths, depths, heads, experts, vocabularies), not by
which family it belongs to; the few families whose fields constrain each other have their numbers in `NUMBERS`.
Every weight is random, norms and biases too: at their defaults (gain 1, bias 0) a wrong tensor can pass for the
right one.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from prosect.core.errors import UnknownName, Unsupported
from prosect.core.seeds import Seed
from prosect.model.inputs import text_of

MOST_PARAMETERS = 30_000_000
"""A network that is still larger after shrinking is not built."""

RULES: tuple[tuple[str, int], ...] = (
    (r"token_(id|index)$|^(unk|mask)_index$|_id$", -1),
    (r"hidden_size_per_layer_input$", 16),
    (r"vocab(_size)?$|vocab_size_per_layer_input|ngram_vocab_size_base|hash_byte_group_vocab$", 96),
    (r"max_position|^n_positions$|^n_ctx$|max_seq_len|context_length|model_max_length", 64),
    (r"max_(source|target)_positions$", 64),
    (r"sliding_window(_size)?$|attention_chunk_size|local_attention|attention_window_size|window_size$", 4),
    (r"^(num_key_value_heads|num_kv_heads|swa_num_key_value_heads|num_query_groups|multi_query_groups)$", 2),
    (r"^qk_head_dim$", 32),
    (r"head_dim$|_head_size$|^d_head$|^dim_head$|^d_kv$|^kv_channels$|^query_pre_attn_scalar$", 16),
    (r"^mamba_(d_head|headdim|head_dim)$|^rotary_dim$", 16),
    (r"^(mamba_n_heads|n_mamba_heads|mamba_num_heads)$", 8),
    (r"(^|_)n?_?heads$|attention_heads$|^n_head$|num_heads$", 4),
    (r"lora_rank$|_rank$", 16),
    (r"experts?_per_tok(en)?$|^moe_topk$|^moe_k$|^top_k$|^index_topk(_blocks)?$", 2),
    (r"^(n_group|num_expert_group|n_groups)$", 2),
    (r"^topk_group$", 1),
    (r"shared_experts?$", 1),
    (r"^zero_expert_num$", 2),
    (r"experts$", 4),
    (r"intermediate|ffn|^dff$|^d_ff$|^dim_ff$|feed_forward_size|^d_inner$|hidden_size_mlp$", 96),
    (r"^(mamba_)?(d_|ssm_)?state(_size)?$|^mamba_d_state$", 8),
    (r"chunk_size$|^block_size$|chunk_length$", 8),
    (r"^(first_k_dense_replace|num_dense_layers|num_nextn_predict_layers|num_mem_blocks)$", 1),
    (r"hidden_size$|^d_model$|^n_embd$|^dim_model$|^emb_dim$|embedding_(dim|size)$|embed_dim$|^width$", 64),
    (r"^hidden_dim$|proj_dim$|^lru_width$|mid_dim$|^dim$", 64),
    (r"(^|_)layers?$|^depth$|^num_blocks$|layers_per_stack$", 0),
    (r"^patch_size$", 4),
    (r"^image_size$", 8),
)
"""What a field's name ends in → its value; -1 stands for a token of its own, 0 for the number of layers."""

FACTORS = r"(?<!channel_)multipliers?$|^logits_scaling$|^scale_emb$|^scale_depth$"
"""Constants that a family multiplies by: at their default of 1 the place where they act would not show."""

NUMBERS: dict[str, dict[str, Any]] = {
    "bamba": {"attn_layer_indices": [1]},
    "cohere_compass_text": {
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 10000.0}
            for kind in ("full_attention", "sliding_attention")
        }
    },
    "deepseek_v2": {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1},
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
        "ffn_config": {"moe_top_k": 2},
    },
    "falcon_h1": {"mamba_d_ssm": 128, "mamba_n_heads": 8, "mamba_d_head": 16},
    "gemma3n_text": {"num_kv_shared_layers": 0},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "num_layers": 2},
    "granitemoehybrid": {"layer_types": ["mamba", "attention"], "num_hidden_layers": 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_hidden_layers": 2},
    "mamba2": {"num_heads": 8, "head_dim": 16},
    "reformer": {
        "attn_layers": ["local", "lsh"],
        "axial_pos_embds": False,
        "num_buckets": 2,
        "lsh_attn_chunk_length": 2,
        "local_attn_chunk_length": 2,
    },
    "zamba": {
        "attention_hidden_size": 128,
        "attention_head_dim": 32,
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
    },
    "zamba2": {
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
        "hybrid_layer_ids": [1, 3],
        "attention_hidden_size": 128,
        "attention_head_dim": 32,
    },
    "zaya": {"num_experts_per_tok": 1},
}
"""Model type → fields that constrain each other, or have no name of their kind."""

DEPTHS = (2, 3, 4, 6, 8, 12)
"""Numbers of layers to try until every kind of layer of the family occurs."""


def types() -> tuple[str, ...]:
    """Every causal language model type of the installed transformers."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return tuple(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def build(model_type: str, seed: int = 0, **fields: Any) -> nn.Module:
    """A small random causal language model of that type, in evaluation mode, every weight random.

    Args:
        model_type: as in a configuration's ``model_type``.
        seed: of the weights.
        fields: values of configuration fields that take precedence over the rules.

    Raises:
        UnknownName: transformers has no such type.
        Unsupported: it cannot be built from a small configuration; the reason is named.
    """
    import transformers
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise UnknownName("causal language model type", model_type, types())
    cls = getattr(transformers, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type])
    said: list[str] = []
    for config in _configurations(model_type, fields, said):
        text = text_of(config)
        for part in (config, text) if text is not config else (config,):
            if hasattr(part, "is_decoder") and not getattr(part, "is_encoder_decoder", False):
                part.is_decoder = True  # else an encoder's class looks both ways
            try:
                return randomised(_built(cls, part), seed)
            except Exception as error:  # whatever a family's constructor raises
                said.append(_first_line(error))
    raise Unsupported(
        f"a small {model_type} ({said[0]})", "a class that can be built from a small configuration"
    )


def _configurations(model_type: str, fields: Mapping[str, Any], said: list[str]) -> Iterator[Any]:
    """Small configurations, the likeliest first; what went wrong with the others is added to ``said``."""
    from transformers import CONFIG_MAPPING

    cls = CONFIG_MAPPING[model_type]
    own = {**NUMBERS.get(model_type, {}), **fields}
    try:
        wanted = _kinds_of_layers(cls())
    except Exception:  # a class whose defaults contradict each other has no default to look at
        wanted = frozenset()
    made = []
    for filled in (False, True):
        for depth in DEPTHS:
            try:
                config = _small(cls, depth, own, filled)
            except Exception as error:  # whatever a family's own validation raises
                said.append(_first_line(error))
                continue
            made.append((not _kinds_of_layers(config) >= wanted, filled, config))
            if not made[-1][0]:
                break
    for _, _, config in sorted(made, key=lambda one: one[:2]):
        yield config


def _built(cls: Any, config: Any) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.device("meta"):
            size = sum(p.numel() for p in cls(config).parameters())
        if size > MOST_PARAMETERS:
            raise ValueError(f"{size:,} parameters after shrinking, more than {MOST_PARAMETERS:,}")
        module: nn.Module = cls(config)
    return module


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """Every floating-point parameter random, none at its default; in evaluation mode."""
    generator = Seed(seed).child("weights").torch()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.is_floating_point():
                spread = 0.2 if parameter.ndim > 1 else 0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * spread)
    return module.eval()


def _small(cls: Any, depth: int, own: Mapping[str, Any], filled: bool) -> Any:
    """A configuration with every known field small; with ``filled``, those without a default are given one."""
    sub = getattr(cls, "sub_configs", {})
    try:
        default: Any = cls()
        values = default.to_dict()
    except Exception:  # it cannot be made by default, so its fields are read off the class
        default, values = None, {}
    changed: dict[str, Any] = {}
    tokens = 95
    for name in _fields(cls, values):
        if name in sub or name in own or name == "model_type":
            continue
        value = values[name] if name in values else getattr(cls, name, None)
        if isinstance(value, float | list) and re.search(FACTORS, name):
            changed[name] = 0.7 if isinstance(value, float) else [0.7 for _ in value]
            continue
        number = _rule(name)
        if number is None or isinstance(value, bool):
            continue
        if value is None and filled and number > 0:
            changed[name] = number
        if not isinstance(value, int) or value < 0:
            continue
        if number == -1:
            if value >= 32:
                changed[name] = tokens
                tokens -= 1
        elif number == 0:
            changed[name] = min(value, depth)
        elif value:
            changed[name] = number
    ungrouped = values.get("num_key_value_heads") == values.get("num_attention_heads", 0)
    if ungrouped and "num_key_value_heads" in changed:
        changed["num_key_value_heads"] = changed["num_attention_heads"]
    for name, kind in sub.items():
        part = getattr(default, name, None)
        inner = type(part) if part is not None and not isinstance(part, dict) else kind
        if part is not None and inner.__name__ != "AutoConfig":
            changed[name] = _small(inner, depth, own.get(name, {}), filled).to_dict()
    changed.update({name: value for name, value in own.items() if name not in sub})
    return cls(**changed)


def _fields(cls: Any, values: Mapping[str, Any]) -> list[str]:
    """What the configuration can be told, inherited bookkeeping left out."""
    names = list(getattr(cls, "__dataclass_fields__", {})) or list(values)
    return [
        n for n in names if n not in ("chunk_size_feed_forward", "pretraining_tp", "id2label", "label2id")
    ]


def _rule(name: str) -> int | None:
    for pattern, value in RULES:
        if re.search(pattern, name):
            return value
    return None


def _kinds_of_layers(config: Any) -> frozenset[str]:
    """The kinds of layers that a configuration has, across the lists it keeps them in."""
    text = text_of(config)
    found: set[str] = set()
    for name in ("layer_types", "layers_block_type", "mlp_layer_types", "block_types"):
        kinds = getattr(text, name, None)
        if isinstance(kinds, list | tuple):
            found |= {f"{name}:{kind}" for kind in kinds}
    return frozenset(found)


def _first_line(error: object) -> str:
    return " ".join(str(error).split())[:140] or type(error).__name__
