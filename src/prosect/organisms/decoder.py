"""A small decoder without norms, for networks whose weights are set by hand.

A standard transformers model: its tree has the usual names (``model.layers.i.self_attn.q_proj`` ...) and
its attention goes through transformers' AttentionInterface, so everything that works on a model from the
hub works on it unchanged. Blocks add attention, then an optional MLP, to the residual stream; positions
are an embedding added to the tokens'.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS


class DecoderConfig(PretrainedConfig):
    """Sizes of a `Decoder`.

    Args:
        vocab_size: tokens.
        hidden_size: width of the residual stream.
        num_hidden_layers: blocks.
        num_attention_heads: heads in each block.
        head_dim: width of each head.
        intermediate_size: neurons of each MLP; 0 for attention only.
        max_position_embeddings: longest sequence.
        attention_scale: factor on the scores.
        causal: whether no position sees a later one.
        query_bias: whether queries have a bias.
    """

    model_type = "prosect-decoder"
    # Kept out of the configuration unless they differ, so that digests of networks without them stay.
    causal = True
    query_bias = False

    def __init__(
        self,
        vocab_size: int = 16,
        hidden_size: int = 16,
        num_hidden_layers: int = 1,
        num_attention_heads: int = 1,
        head_dim: int = 16,
        intermediate_size: int = 0,
        max_position_embeddings: int = 64,
        attention_scale: float = 1.0,
        causal: bool = True,
        query_bias: bool = False,
        **kwargs: Any,
    ) -> None:
        if not causal:
            self.causal = causal
        if query_bias:
            self.query_bias = query_bias
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.num_key_value_heads = num_attention_heads
        self.head_dim = head_dim
        self.intermediate_size = intermediate_size
        self.max_position_embeddings = max_position_embeddings
        self.attention_scale = attention_scale
        super().__init__(**{"tie_word_embeddings": False, "use_cache": False, **kwargs})


def eager_attention(
    module: nn.Module,
    query: Float[Tensor, "rows heads queries head"],
    key: Float[Tensor, "rows heads keys head"],
    value: Float[Tensor, "rows heads keys head"],
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """Softmax attention written out; returns values (rows, queries, heads, head) and probabilities."""
    scores = query @ key.transpose(-1, -2) * scaling
    if attention_mask is not None:
        scores = scores + attention_mask[..., : key.shape[-2]]
    probabilities = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    return (probabilities @ value).transpose(1, 2).contiguous(), probabilities


class Attention(nn.Module):
    """Multi-head attention through transformers' AttentionInterface."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer_idx = config, layer
        self.head_dim, self.scaling = config.head_dim, config.attention_scale
        self.num_key_value_groups, self.is_causal, self.attention_dropout = 1, config.causal, 0.0
        inner = config.num_attention_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, inner, bias=config.query_bias)
        self.k_proj = nn.Linear(config.hidden_size, inner, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, inner, bias=False)
        self.o_proj = nn.Linear(inner, config.hidden_size, bias=False)

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        query, key, value = (
            projection(hidden_states).view(shape).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(self.config._attn_implementation, eager_attention)
        out, weights = attend(
            self, query, key, value, attention_mask, dropout=0.0, scaling=self.scaling, **kwargs
        )
        return self.o_proj(out.reshape(*hidden_states.shape[:-1], -1).contiguous()), weights


class Mlp(nn.Module):
    """ReLU neurons."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.act_fn = nn.ReLU()
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.down_proj(self.act_fn(self.up_proj(hidden_states)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention, then the MLP if there is one, each added to the residual stream."""

    def __init__(self, config: DecoderConfig, layer: int) -> None:
        super().__init__()
        self.self_attn = Attention(config, layer)
        if config.intermediate_size:
            self.mlp = Mlp(config)

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        hidden_states = hidden_states + self.self_attn(hidden_states, **kwargs)[0]
        if hasattr(self, "mlp"):
            hidden_states = hidden_states + self.mlp(hidden_states)
        return hidden_states


class Trunk(nn.Module):
    """Embeddings, blocks, and a final norm that does nothing."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.num_hidden_layers))
        self.norm = nn.Identity()

    def forward(
        self, input_ids: Int[Tensor, "rows positions"], attention_mask: Tensor | None = None, **_: Any
    ) -> BaseModelOutputWithPast:
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        hidden = self.embed_tokens(input_ids) + self.embed_positions(positions)
        mask = self._mask(hidden, attention_mask, positions)
        for block in self.layers:
            hidden = block(hidden, attention_mask=mask)
        return BaseModelOutputWithPast(last_hidden_state=self.norm(hidden))

    def _mask(self, hidden: Tensor, attention_mask: Tensor | None, positions: Tensor) -> Any:
        if not self.config.causal:
            return create_bidirectional_mask(
                config=self.config, inputs_embeds=hidden, attention_mask=attention_mask
            )
        return create_causal_mask(
            config=self.config,
            inputs_embeds=hidden,
            attention_mask=attention_mask,
            past_key_values=None,
            position_ids=positions[None],
        )


class Decoder(PreTrainedModel):
    """The whole model: logits (rows, positions, vocab_size) for ``input_ids`` (rows, positions)."""

    config_class = DecoderConfig
    base_model_prefix = "model"
    _supports_sdpa = True
    _supports_attention_backend = True

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__(config)
        self.model = Trunk(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def forward(
        self, input_ids: Int[Tensor, "rows positions"], attention_mask: Tensor | None = None, **_: Any
    ) -> CausalLMOutputWithPast:
        hidden = self.model(input_ids, attention_mask=attention_mask).last_hidden_state
        return CausalLMOutputWithPast(logits=self.lm_head(hidden))
