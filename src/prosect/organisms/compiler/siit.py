"""A program trained into a narrower network: the same nodes carry the same variables, in superposition.

Strict interchange intervention training (Gupta et al. 2024, "InterpBench"; the interchange loss is that of Geiger et
al. 2022, "Inducing Causal Structure for Interpretable Neural Networks"). The network has the heads and layers of the
compiled one and fewer dimensions than its variables need. Three losses, all cross-entropy with what the interpreter gives:

- *behaviour*: on an input;
- *interchange*: with what one node that carries variables had on another input, against the program whose
  variables are those of the other input;
- *strictness*: with what a node that carries nothing had on another input, against the program unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from prosect.core.errors import Unsupported
from prosect.core.seeds import Seed
from prosect.organisms.compiler.compile import BOS_ID, logits_of
from prosect.organisms.compiler.interpret import every_input, run
from prosect.organisms.compiler.layout import OUTPUT, Layout
from prosect.organisms.compiler.types import Attend, Checked, Codes, Role, Step
from prosect.organisms.decoder import Decoder, DecoderConfig
from prosect.organisms.filled import filled

STRICTNESS = 0.4  # weight of its loss beside the other two
CLIP = 1.0
IGNORED = -100  # a place at which the program gives nothing defined


@dataclass(frozen=True)
class Node:
    """A place in the network and what it should carry.

    Attributes:
        site: ``z.L.hN`` or ``mlp_out_post.L``.
        layer, head: where; no head for an MLP.
        variables: of the program; none for a node that should carry nothing.
    """

    site: str
    layer: int
    head: int | None
    variables: tuple[str, ...]


@dataclass(frozen=True)
class Recipe:
    """Sizes and training.

    Attributes:
        width: of the residual stream.
        head: width of each head.
        neurons: of each MLP.
        spare: heads in every layer that should carry nothing.
        steps, rows, rate: of Adam, the rate falling to zero along a cosine.
    """

    width: int
    head: int
    neurons: int
    spare: int = 1
    steps: int = 4000
    rows: int = 128
    rate: float = 4e-3


@dataclass(frozen=True)
class Metrics:
    """How well the program is carried; shares between 0 and 1.

    Attributes:
        behaviour: of all places of all inputs whose output is right.
        interchange: of places right after an interchange at a node that carries variables, the lowest over nodes.
        strictness: of places right after one at a node that carries nothing, the lowest over nodes; 1 without any.
        inputs: how many behaviour was measured on: every one.
        pairs: how many pairs each node was tried on.
    """

    behaviour: float
    interchange: float
    strictness: float
    inputs: int
    pairs: int


def nodes(program: Checked, layout: Layout) -> tuple[Node, ...]:
    """Every head and every MLP of a layout, with what it carries."""
    at = {place: name for name, place in layout.head_of.items()}
    out = []
    for layer in range(layout.layers):
        for head in range(layout.heads):
            name = at.get((layer, head))
            out.append(Node(f"z.{layer}.h{head}", layer, head, () if name is None else (name,)))
        names = tuple(n for n, (i, _) in layout.neurons_of.items() if i == layer)
        out.append(Node(f"mlp_out_post.{layer}", layer, None, names))
    return tuple(out)


def blank(program: Checked, layout: Layout, recipe: Recipe, seed: int) -> Decoder:
    """The untrained network: random weights of variance 1 / (what they read)."""
    if program.output.numerical:
        raise Unsupported(f"training {program.name}, whose output is a number", "a categorical output")
    config = DecoderConfig(
        vocab_size=max(1 + len(program.vocabulary), 1 + int(logits_of(program).max())),
        hidden_size=recipe.width,
        num_hidden_layers=layout.layers,
        num_attention_heads=layout.heads,
        head_dim=recipe.head,
        intermediate_size=recipe.neurons,
        max_position_embeddings=1 + program.length,
        attention_scale=recipe.head**-0.5,
        causal=program.causal,
        query_bias=True,
    )
    with torch.device("meta"):
        module = Decoder(config)
    root = Seed(seed).child("compiler", program.name, "siit")
    state = {}
    for name, weights in module.state_dict().items():
        drawn = root.child(name).numpy().standard_normal(weights.shape)
        scale = 0.0 if weights.ndim < 2 else 0.5 if "embed" in name else weights.shape[-1] ** -0.5
        state[name] = scale * drawn
    return filled(module, state)


def train(program: Checked, layout: Layout, recipe: Recipe, seed: int = 0) -> Decoder:
    """The trained network, in eval mode.

    Args:
        program: with a categorical output.
        layout: of the compiled network; says which node carries what.
        recipe: sizes and training.
        seed: of the weights and of the inputs.

    Raises:
        Unsupported: the output is a number.
    """
    module = blank(program, layout, recipe, seed)
    module.requires_grad_(True).train()
    rng = Seed(seed).child("compiler", program.name, "siit", "inputs").numpy()
    places = nodes(program, layout)
    carrying = [n for n in places if n.variables]
    empty = [n for n in places if not n.variables]
    optimiser = torch.optim.Adam(module.parameters(), lr=recipe.rate, betas=(0.9, 0.99))
    plan = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, recipe.steps)
    lengths = np.arange(1, program.length + 1)
    for _ in range(recipe.steps):
        length = int(rng.choice(lengths, p=lengths / lengths.sum()))
        base, other = rng.integers(len(program.vocabulary), size=(2, recipe.rows, length))
        node = carrying[rng.integers(len(carrying))]
        nothing = empty[rng.integers(len(empty))] if empty else None
        logits = _interchanged(module, base, other, [node, nothing])
        clean = run(program, base)[OUTPUT]
        loss = _loss(program, logits[0], clean) + _loss(
            program, logits[1], changed(program, node, base, other)
        )
        if nothing is not None:
            loss = loss + STRICTNESS * _loss(program, logits[2], clean)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(module.parameters(), CLIP)
        optimiser.step()
        plan.step()
    module.requires_grad_(False).eval()
    return module


def changed(program: Checked, node: Node, base: Codes, other: Codes) -> Codes:
    """What the program gives for one input when a node's variables are those of another."""
    donor = run(program, other)

    def read(step: Step | None, role: Role, name: str, own: Codes) -> Codes:
        return donor[name] if name in node.variables else own

    return run(program, base, read)[OUTPUT]


def measure(module: Decoder, program: Checked, layout: Layout, seed: int = 0, pairs: int = 2000) -> Metrics:
    """How well a network carries a program.

    Args:
        module, program, layout: as for `train`.
        seed: of the pairs.
        pairs: of inputs of the full length, for each node.
    """
    right = total = inputs = 0
    answers = logits_of(program)
    with torch.no_grad():
        for tokens in every_input(program):
            (logits,) = _interchanged(module, tokens, tokens, [])
            clean = run(program, tokens)[OUTPUT]
            right += int((logits.argmax(-1).numpy() == answers[clean]).sum())
            total, inputs = total + clean.size, inputs + len(tokens)
        rng = Seed(seed).child("compiler", program.name, "pairs").numpy()
        base, other = rng.integers(len(program.vocabulary), size=(2, pairs, program.length))
        shares: dict[bool, list[float]] = {True: [], False: []}
        for node in nodes(program, layout):
            expected = changed(program, node, base, other)
            got = _interchanged(module, base, other, [node])[1].argmax(-1).numpy()
            shares[bool(node.variables)].append(float((got == answers[expected])[expected >= 0].mean()))
    return Metrics(right / total, min(shares[True]), min(shares[False], default=1.0), inputs, pairs)


def carries(program: Checked, node: Node) -> str:
    """What a node carries, in words."""
    forms = {s.out.name: s.form for s in program.steps if isinstance(s, Attend)}
    return ", ".join(f"{name} ({forms[name]})" if name in forms else name for name in node.variables)


def _loss(program: Checked, logits: Float[Tensor, "rows positions values"], codes: Codes) -> Tensor:
    wanted = torch.from_numpy(np.where(codes < 0, IGNORED, logits_of(program)[codes]))
    return nn.functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED)


def _ids(tokens: Codes) -> Int[Tensor, "rows places"]:
    return torch.from_numpy(np.pad(1 + tokens, ((0, 0), (1, 0)), constant_values=BOS_ID))


def _interchanged(
    module: Decoder, base: Codes, other: Codes, chosen: list[Node | None]
) -> list[Float[Tensor, "rows positions values"]]:
    """Logits of ``base``, and of it with each node's value that of ``other``, all in one pass."""
    active = [node for node in chosen if node is not None]
    ids = torch.cat([_ids(base)] * (1 + len(active)) + ([_ids(other)] if active else []))
    with _swapped(module, active, len(base)):
        logits = module(ids).logits[:, 1:]
    return list(logits[: (1 + len(active)) * len(base)].split(len(base)))


@contextmanager
def _swapped(module: Decoder, active: list[Node], rows: int) -> Iterator[None]:
    """Have block i + 1 of the rows take node i from the last block of rows."""
    hooks = []
    for i, node in enumerate(active):
        own = slice((i + 1) * rows, (i + 2) * rows)
        block: Any = module.model.layers[node.layer]
        if node.head is None:
            hooks.append(block.mlp.register_forward_hook(_mlp_hook(own, rows)))
        else:
            width = module.config.head_dim
            inside = slice(node.head * width, (node.head + 1) * width)
            hooks.append(block.self_attn.o_proj.register_forward_pre_hook(_head_hook(own, rows, inside)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _mlp_hook(own: slice, rows: int) -> Any:
    def hook(_: nn.Module, __: Any, out: Tensor) -> Tensor:
        return torch.cat([out[: own.start], out[-rows:], out[own.stop :]])

    return hook


def _head_hook(own: slice, rows: int, inside: slice) -> Any:
    def hook(_: nn.Module, given: tuple[Tensor, ...]) -> tuple[Tensor]:
        z = given[0]
        mine = torch.cat([z[own, :, : inside.start], z[-rows:, :, inside], z[own, :, inside.stop :]], dim=-1)
        return (torch.cat([z[: own.start], mine, z[own.stop :]]),)

    return hook
