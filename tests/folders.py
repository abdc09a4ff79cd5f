"""Folders as other projects write them, made of random numbers, each with its project's formula in NumPy."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from prosect.core.seeds import Seed

READ, LATENTS, WRITTEN, ROWS, K = 5, 12, 4, 40, 3
SAELENS = (
    "standard",
    "topk",
    "jumprelu",
    "gated",
    "batchtopk",
    "matryoshka_batchtopk",
    "transcoder",
    "skip_transcoder",
    "jumprelu_transcoder",
    "jumprelu_skip_transcoder",
)
SPARSIFY = ("topk", "skip", "transcoder", "skip_transcoder")
LEARNING = (
    "AutoEncoder",
    "AutoEncoderNew",
    "GatedAutoEncoder",
    "AutoEncoderTopK",
    "BatchTopKSAE",
    "MatryoshkaBatchTopKSAE",
    "JumpReluAutoEncoder",
)


@dataclass
class Made:
    """A folder, inputs, and what the formula gives for them."""

    folder: Path
    x: np.ndarray
    codes: np.ndarray
    out: np.ndarray


class Draw:
    """Random arrays by name, float32."""

    def __init__(self, name: str) -> None:
        self.seed = Seed(0).child("folders", name)

    def __call__(self, name: str, *shape: int) -> np.ndarray:
        return self.seed.child(name).numpy().normal(size=shape).astype(np.float32) * np.float32(0.7)

    def positive(self, name: str, *shape: int) -> np.ndarray:
        return np.abs(self(name, *shape)) * np.float32(0.5)


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def largest(pre: np.ndarray, k: int) -> np.ndarray:
    """relu of the k largest of each row, zero elsewhere."""
    kth = np.sort(pre, axis=1)[:, -k][:, None]
    return np.where(pre >= kth, relu(pre), 0)


def saelens(root: Path, architecture: str, by_norm: bool = False, **settings) -> Made:
    """A folder of SAELens 6; batch architectures are training checkpoints. ``settings`` go into cfg.json."""
    draw, across = Draw(architecture), "transcoder" in architecture
    out = WRITTEN if across else READ
    centred = settings.get("apply_b_dec_to_input", not across)
    w = {"W_enc": draw("W_enc", READ, LATENTS), "W_dec": draw("W_dec", LATENTS, out), "b_dec": draw("b", out)}
    x = draw("x", ROWS, READ)
    here = x - centred * w["b_dec"] if centred else x
    norms = np.linalg.norm(w["W_dec"], axis=1)
    if architecture == "gated":
        w |= {name: draw(name, LATENTS) for name in ("b_gate", "b_mag", "r_mag")}
        gate = here @ w["W_enc"] + w["b_gate"] > 0
        z = gate * relu(np.exp(w["r_mag"]) * (here @ w["W_enc"]) + w["b_mag"])
    else:
        w["b_enc"] = draw("b_enc", LATENTS)
        pre = here @ w["W_enc"] + w["b_enc"]
        if by_norm:
            pre = pre * norms
        if architecture == "topk":
            z = largest(pre, K)
        elif architecture.startswith("jumprelu"):
            w["threshold"] = draw.positive("threshold", LATENTS)
            z = relu(pre) * (pre > w["threshold"])
        elif "batchtopk" in architecture:
            w["topk_threshold"] = np.array(0.6)
            z = relu(pre) * (pre > 0.6)
        else:
            z = relu(pre)
    y = (z / norms if by_norm else z) @ w["W_dec"] + w["b_dec"]
    if "skip" in architecture:
        w["W_skip"] = draw("W_skip", WRITTEN, READ)
        y = y + x @ w["W_skip"].T
    config = {
        "architecture": architecture,
        "d_in": READ,
        "d_sae": LATENTS,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": bool(centred),
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {"sae_lens_version": "6.18.0", "hook_name": "blocks.3.hook_resid_post"},
    }
    if across:
        config["d_out"] = WRITTEN
        config["metadata"] |= {"hook_name": "blocks.3.mlp.hook_in", "hook_name_out": "blocks.3.hook_mlp_out"}
    if "topk" in architecture:
        config |= {"k": K, "rescale_acts_by_decoder_norm": by_norm}
    save_file(w, root / "sae_weights.safetensors")
    (root / "cfg.json").write_text(json.dumps(config | settings))
    return Made(root, x, z, y)


def sparsify(root: Path, kind: str) -> Made:
    """A folder of sparsify, named after a module."""
    transcodes, skips = "transcoder" in kind, "skip" in kind
    folder = root / ("layers.3.mlp" if transcodes else "layers.3")
    folder.mkdir()
    draw = Draw(f"sparsify {kind}")
    w = {
        "encoder.weight": draw("encoder", LATENTS, READ),
        "encoder.bias": draw("bias", LATENTS),
        "W_dec": draw("decoder", LATENTS, READ),
        "b_dec": draw("b_dec", READ),
    }
    x = draw("x", ROWS, READ)
    here = x if transcodes else x - w["b_dec"]
    z = largest(relu(here @ w["encoder.weight"].T + w["encoder.bias"]), K)
    y = z @ w["W_dec"] + w["b_dec"]
    if skips:
        w["W_skip"] = draw("skip", READ, READ)
        y = y + x @ w["W_skip"].T
    config = {
        "activation": "topk",
        "expansion_factor": 32,
        "normalize_decoder": True,
        "num_latents": LATENTS,
        "k": K,
        "multi_topk": False,
        "skip_connection": skips,
        "transcode": transcodes,
        "d_in": READ,
    }
    save_file(w, folder / "sae.safetensors")
    (folder / "cfg.json").write_text(json.dumps(config))
    return Made(folder, x, z, y)


def learning(root: Path, kind: str, **trainer) -> Made:
    """A folder of dictionary_learning. ``trainer`` goes into its config."""
    draw = Draw(kind)
    x = draw("x", ROWS, READ)
    e, d = draw("e", LATENTS, READ), draw("d", READ, LATENTS)
    b, c = draw("b", LATENTS), draw("c", READ)
    linear = {"encoder.weight": e, "decoder.weight": d}
    if kind == "AutoEncoder":
        w = {**linear, "encoder.bias": b, "bias": c}
        norms = np.linalg.norm(d, axis=0)
        z = relu((x - c) @ e.T + b) * norms
        y = (z / norms) @ d.T + c
    elif kind == "AutoEncoderNew":
        w = {**linear, "encoder.bias": b, "decoder.bias": c}
        z = relu(x @ e.T + b)
        y = z @ d.T + c
    elif kind == "GatedAutoEncoder":
        r, m = draw("r", LATENTS), draw("m", LATENTS)
        w = {**linear, "decoder_bias": c, "r_mag": r, "gate_bias": b, "mag_bias": m}
        z = ((x - c) @ e.T + b > 0) * relu(np.exp(r) * ((x - c) @ e.T) + m)
        y = z @ d.T + c
    elif kind == "JumpReluAutoEncoder":
        t = draw.positive("t", LATENTS)
        w = {"W_enc": e.T.copy(), "b_enc": b, "W_dec": d.T.copy(), "b_dec": c, "threshold": t}
        pre = x @ e.T + b
        z = relu(pre * (pre > t))
        y = z @ d.T + c
    else:
        pre = relu((x - c) @ e.T + b)
        z = largest(pre, K) if kind == "AutoEncoderTopK" else pre * (pre > 0.6)
        w = {**linear, "encoder.bias": b, "b_dec": c}
        if kind == "MatryoshkaBatchTopKSAE":
            w = {"W_enc": e.T.copy(), "b_enc": b, "W_dec": d.T.copy(), "b_dec": c}
            w["group_sizes"] = np.array([4, LATENTS - 4])
        w |= {"k": np.array(K, dtype=np.int32), "threshold": np.array(0.6, dtype=np.float32)}
        y = z @ d.T + c
    torch.save({name: torch.from_numpy(np.asarray(v)) for name, v in w.items()}, root / "ae.pt")
    about = {"dict_class": kind, "lm_name": "tiny", "submodule_name": "resid_post_layer_3", **trainer}
    (root / "config.json").write_text(json.dumps({"trainer": about, "buffer": {"io": "out"}}))
    return Made(root, x, z, y)


def gemma(root: Path) -> Made:
    """An archive of Gemma Scope, in folders named as there."""
    folder = root / "gemma-scope-2b-pt-res" / "layer_7" / "width_16k" / "average_l0_71"
    folder.mkdir(parents=True)
    draw = Draw("gemma")
    w = {"W_enc": draw("e", READ, LATENTS), "W_dec": draw("d", LATENTS, READ)}
    w |= {"b_enc": draw("b", LATENTS), "b_dec": draw("c", READ), "threshold": draw.positive("t", LATENTS)}
    x = draw("x", ROWS, READ)
    pre = x @ w["W_enc"] + w["b_enc"]
    z = pre * (pre > w["threshold"])
    np.savez(folder / "params.npz", **w)
    return Made(folder, x, z, z @ w["W_dec"] + w["b_dec"])


def gemma_2(root: Path, kind: str) -> Made:
    """A folder of Gemma Scope 2: an ``autoencoder``, a ``transcoder`` or a ``skip transcoder``."""
    draw, across = Draw(f"gemma 2 {kind}"), kind != "autoencoder"
    out = WRITTEN if across else READ
    w = {"w_enc": draw("e", READ, LATENTS), "w_dec": draw("d", LATENTS, out), "b_enc": draw("b", LATENTS)}
    w |= {"b_dec": draw("c", out), "threshold": draw.positive("t", LATENTS)}
    x = draw("x", ROWS, READ)
    pre = x @ w["w_enc"] + w["b_enc"]
    z = pre * (pre > w["threshold"])
    y = z @ w["w_dec"] + w["b_dec"]
    if kind == "skip transcoder":
        w["affine_skip_connection"] = draw("s", READ, out)
        y = y + x @ w["affine_skip_connection"]
    config = {"architecture": "jump_relu", "hf_hook_point_in": "model.layers.9.output", "model_name": "tiny"}
    if across:
        config["hf_hook_point_in"] = "model.layers.9.pre_feedforward_layernorm.output"
        config["hf_hook_point_out"] = "model.layers.9.post_feedforward_layernorm.output"
    save_file(w, root / "params.safetensors")
    (root / "config.json").write_text(json.dumps(config))
    return Made(root, x, z, y)
