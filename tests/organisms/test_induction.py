"""The induction organism: what it computes, and that its truth is what ablating everything shows."""

import numpy as np
import pytest
import torch

from prosect.organisms.induction import BOS, POSITIONS, Plan, network, source, targets

SEEDS = range(3)


@pytest.fixture(scope="module", params=SEEDS)
def organism(request):
    module, truth = network(request.param)
    module.config._attn_implementation = "eager"  # gives attention weights
    return request.param, module, truth


def sequences(seed, part="explore", rows=256):
    return next(source(seed).batches(part, rows=rows))


def alike(seed, rows=8):
    """Sequences of one length, so that each can stand in for another at every position."""
    batch = sequences(seed)
    lengths = batch.lengths
    common = max(set(lengths.tolist()), key=lambda n: (np.sum(lengths == n), n))
    chosen = batch.select(np.flatnonzero(lengths == common)[:rows].tolist())
    return chosen.tensors["input_ids"][:, :common]


def attention(module, ids):
    """Attention of every head, {layer: (rows, heads, queries, keys)}, and logits."""
    seen, hooks = {}, []
    for i, block in enumerate(module.model.layers):
        keep = lambda _m, _a, out, i=i: seen.__setitem__(i, out[1])  # noqa: E731
        hooks.append(block.self_attn.register_forward_hook(keep))
    with torch.no_grad():
        logits = module(ids).logits
    for hook in hooks:
        hook.remove()
    return seen, logits


@pytest.mark.parametrize("part", ["explore", "validate.0", "shift"])
def test_the_second_copy_is_predicted_from_its_second_token_on(organism, part):
    seed, module, _ = organism
    batch = sequences(seed, part, rows=96)
    with torch.no_grad():
        guess = module(**batch.tensors).logits.argmax(-1)
    checked = 0
    for row, length in enumerate(batch.lengths):
        ids = batch.tensors["input_ids"][row, :length]
        repeats = [n for n in range(8, length // 2 + 1) if torch.equal(ids[1 + n :], ids[1:-n])]
        if not repeats:
            continue
        block = repeats[0]
        assert torch.equal(guess[row, 1 + block : length - 1], ids[2 + block :])
        checked += 1
    assert checked > len(batch) / 2
    expected = targets(batch)
    scored = expected >= 0
    assert torch.equal(guess[scored], expected[scored])


def test_targets_are_what_followed_before():
    batch = sequences(0)
    expected = targets(batch)
    for row, length in list(enumerate(batch.lengths))[:20]:
        ids = batch.tensors["input_ids"][row].tolist()
        for t in range(len(ids)):
            after = {ids[s + 1] for s in range(t) if ids[s] == ids[t]} if t < length else set()
            assert expected[row, t] == (after.pop() if len(after) == 1 else -1)


def test_every_head_attends_as_its_role_says(organism):
    seed, module, truth = organism
    ids = alike(seed)
    seen, _ = attention(module, ids)
    length = ids.shape[1]
    t = torch.arange(length)
    same = (ids[:, :, None] == ids[:, None, :]) & torch.ones(length, length).tril(-1).bool()
    for v in truth.variables:
        layer, head = int(v.site[2]), int(v.site[5])
        pattern = seen[layer][:, head]
        role, offset = v.parameters["role"], v.parameters["offset"]
        if role in ("previous", "offset"):
            assert offset == 1 if role == "previous" else 2 <= offset <= 6
            hit = pattern[:, t[offset:], t[offset:] - offset]
            assert hit.min() > 1 - 1e-4
        elif role == "first":
            assert pattern[:, :, 0].min() > 1 - 1e-4
        elif role == "induction":
            eligible = same.roll(1, dims=2)  # the key after each earlier occurrence
            there = eligible.any(-1)
            share = eligible / eligible.sum(-1, keepdim=True).clamp(min=1)
            assert there.any()
            assert (pattern - share)[there].abs().max() < 1e-4
        else:
            assert role == "none"
            for other in (pattern[:, :, 0], pattern[:, t[1:], t[1:] - 1]):
                assert other[:, 20:].mean() < 0.5
    assert (ids[:, 0] == BOS).all()


def test_only_the_two_heads_that_matter_matter(organism):
    seed, module, truth = organism
    ids = alike(seed)
    with torch.no_grad():
        base = module(ids).logits
        for v in truth.variables:
            layer, head = int(v.site[2]), int(v.site[5])
            width = module.config.head_dim

            def silence(_m, args, head=head, width=width):
                z = args[0].clone()
                z[..., head * width : (head + 1) * width] = 0
                return (z,)

            hook = module.model.layers[layer].self_attn.o_proj.register_forward_pre_hook(silence)
            change = (module(ids).logits - base).abs().max()
            hook.remove()
            assert change > 5 if v.effect["matters"] else change < 1e-4, v


def test_without_the_previous_head_nothing_is_predicted(organism):
    seed, module, truth = organism
    (previous,) = [v for v in truth.variables if v.parameters["role"] == "previous" and v.effect["matters"]]
    width, head = module.config.head_dim, int(previous.site[5])
    batch = sequences(seed, rows=96)
    expected = targets(batch)

    def silence(_m, args):
        z = args[0].clone()
        z[..., head * width : (head + 1) * width] = 0
        return (z,)

    hook = module.model.layers[0].self_attn.o_proj.register_forward_pre_hook(silence)
    with torch.no_grad():
        guess = module(**batch.tensors).logits.argmax(-1)
    hook.remove()
    scored = expected >= 0
    assert (guess == expected)[scored].float().mean() < 0.15


class Paths:
    """The network written out in float64 as writers and readers, so that one edge can be cut at a time."""

    def __init__(self, module, ids):
        self.heads, width = module.config.num_attention_heads, module.config.head_dim
        m = module.model
        self.names = [[f"{i}.h{h}" for h in range(self.heads)] for i in range(len(m.layers))]
        self.read, self.write = {}, {}
        for names, block in zip(self.names, m.layers, strict=True):
            a = block.self_attn
            o = a.o_proj.weight.detach().double().view(-1, self.heads, width)
            for h, name in enumerate(names):
                self.write[name] = o[:, h].T
                for r, p in (("q", a.q_proj), ("k", a.k_proj), ("v", a.v_proj)):
                    rows = slice(h * width, (h + 1) * width)
                    self.read[f"{r}.{name}"] = p.weight.detach().double()[rows].T
        self.read["output"] = module.lm_head.weight.detach().double().T
        self.causal = torch.ones(ids.shape[1], ids.shape[1]).tril().bool()
        embedded = m.embed_tokens.weight.detach()[ids] + m.embed_positions.weight.detach()[: ids.shape[1]]
        self.written = {"resid_pre.0": embedded.double()}
        self.values = {}
        for names in self.names:
            stream = sum(self.written.values())
            for name in names:
                for r in "qkv":
                    self.values[f"{r}.{name}"] = stream @ self.read[f"{r}.{name}"]
            self.written |= {f"z.{name}": self.head(name, self.values) for name in names}
        self.logits = sum(self.written.values()) @ self.read["output"]

    def head(self, name, values):
        scores = values[f"q.{name}"] @ values[f"k.{name}"].transpose(-1, -2)
        probs = scores.masked_fill(~self.causal, -torch.inf).softmax(-1)
        return probs @ values[f"v.{name}"] @ self.write[name]

    def edges(self):
        writers = ["resid_pre.0"]
        for names in self.names:
            yield from ((w, f"{r}.{name}") for w in writers for name in names for r in "qkv")
            writers += [f"z.{name}" for name in names]
        yield from ((w, "output") for w in writers)

    def change(self, edge, ablation):
        """How much the logits change if the writer's part of the reader's input, alone, is replaced."""
        writer, reader = edge
        delta = (self.replacement(writer, ablation) - self.written[writer]) @ self.read[reader]
        if reader == "output":
            return delta.abs().amax(-1)
        name = reader[2:]
        moved = self.head(name, self.values | {reader: self.values[reader] + delta})
        moved = moved - self.written[f"z.{name}"]
        total = moved
        if name in self.names[0]:
            for later in self.names[1]:
                seen = {f"{r}.{later}": moved @ self.read[f"{r}.{later}"] for r in "qkv"}
                values = {key: self.values[key] + more for key, more in seen.items()}
                total = total + self.head(later, values) - self.written[f"z.{later}"]
        return (total @ self.read["output"]).abs().amax(-1)

    def replacement(self, writer, ablation):
        x = self.written[writer]
        match ablation:
            case "zero":
                return torch.zeros_like(x)
            case "mean":
                return x.mean(dim=(0, 1), keepdim=True).expand_as(x)
            case "mean-positional":
                return x.mean(dim=0, keepdim=True).expand_as(x)
            case "resample":
                return x.roll(1, dims=0)


@pytest.mark.parametrize("ablation", ["zero", "mean", "mean-positional", "resample"])
def test_the_edges_are_exactly_those_whose_ablation_changes_the_logits(organism, ablation):
    seed, module, truth = organism
    ids = alike(seed, rows=4)
    paths = Paths(module, ids)
    with torch.no_grad():
        assert (module(ids).logits - paths.logits).abs().max() < 1e-4
    scored = (ids[:, :, None] == ids[:, None, :]).tril(-1).any(-1)
    edges = list(paths.edges())
    assert len(edges) == 4 * 3 * 1 + 4 * 3 * 5 + 9
    found, anywhere = set(), set()
    for edge in edges:
        change = paths.change(edge, ablation)
        assert change.max() > 0.5 or change.max() < 1e-4, "neither an effect nor none"
        if change.max() > 0.5:
            anywhere.add(edge)
        if change[scored].max() > 0.5:
            found.add(edge)
    assert found == anywhere == set(truth.edges[ablation])


def test_truth_covers_every_head_and_names_six_decoys(organism):
    _, module, truth = organism
    assert {v.site for v in truth.variables} == {f"z.{i}.h{h}" for i in range(2) for h in range(4)}
    assert sum(not v.effect["matters"] for v in truth.variables) == 6
    assert not truth.unknown
    assert module.config.vocab_size == round(1 / truth.quantities["chance"]) + 1


def test_seeds_differ_in_more_than_basis():
    plans = [Plan.of(seed) for seed in range(20)]
    assert len({p.heads for p in plans}) >= 15
    assert len({(p.shortest, p.longest) for p in plans}) >= 10
    assert len({p.offset for p in plans}) == 5
    assert len({p.where("random")[0] for p in plans}) == 2


def test_shifted_sequences_are_longer_and_fit():
    usual, shifted = sequences(0), sequences(0, "shift")
    assert shifted.lengths.min() > np.median(usual.lengths)
    assert all(sequences(s, "shift").lengths.max() <= POSITIONS for s in range(5))
    assert POSITIONS >= 1 + 4 * 32
