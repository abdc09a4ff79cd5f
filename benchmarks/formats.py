"""Formats beside the projects whose formats they are: the codes that SAELens, sparsify and dictionary_learning compute.

Run it with an interpreter that has them, in an environment of its own, because SAELens does not go together with the
other peers (`benchmarks/README.md`). A peer that is not there is skipped, in words.

    python benchmarks/formats.py          save with prosect, load with the peer, compare codes and reconstructions
    python benchmarks/formats.py --make   write the files of tests/decompose/formats/reference with the peers

The reference files are small (8 wide, 16 latents), and hold random numbers, the inputs, and the codes and
reconstructions that the peer gave for them. The tests of prosect read them, without the peers.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from figures import Figure, report
from prosect.core.errors import Unsupported
from prosect.core.seeds import Seed
from prosect.decompose.dictionary import Dictionary, Weights
from prosect.decompose.pretrained import save_dictionary
from prosect.decompose.sparsity import Threshold, TopK

HERE = Path(__file__).parents[1] / "tests" / "decompose" / "formats" / "reference"
READ, LATENTS, WRITTEN, ROWS, K = 8, 16, 6, 24, 3
HOOK, OUT = "blocks.3.hook_resid_post", "blocks.3.hook_mlp_out"
BAR = "<= 1e-5"


def peer(name: str) -> Any:
    """A library, or None with a line that says that it is not there."""
    if importlib.util.find_spec(name) is None:
        print(f"{name} is not installed here: skipped")
        return None
    return importlib.import_module(name)


def randomise(module: torch.nn.Module, name: str) -> None:
    """Numbers that would show a mistake: no zero biases, no equal norms, thresholds that matter."""
    generator = Seed(0).child("formats", name).torch()
    for part, value in sorted(module.named_parameters()):
        drawn = torch.randn(value.shape, generator=generator)
        positive = part == "threshold"
        value.data = (drawn.abs() * 0.5 if positive else drawn * 0.6).to(value.dtype)


def inputs(name: str) -> Tensor:
    """Random inputs."""
    return torch.randn(ROWS, READ, generator=Seed(0).child("inputs", name).torch())


def keep(folder: Path, x: Tensor, codes: Tensor, out: Tensor) -> None:
    """What the peer computed, beside what it saved."""
    values = {"x": x, "codes": codes, "out": out}
    save_file(
        {k: v.detach().float().contiguous() for k, v in values.items()}, folder / "expected.safetensors"
    )


# SAELens: make


def saelens_cases(lens: Any) -> dict[str, tuple[Any, Any]]:
    """Each architecture that can be loaded, with settings that change what it computes."""
    common = {"d_in": READ, "d_sae": LATENTS}
    across = {**common, "d_out": WRITTEN, "apply_b_dec_to_input": False}
    t = importlib.import_module("sae_lens.saes.transcoder")
    return {
        "standard": (lens.StandardSAE, lens.StandardSAEConfig(**common)),
        "standard_uncentred": (
            lens.StandardSAE,
            lens.StandardSAEConfig(**common, apply_b_dec_to_input=False),
        ),
        "standard_bfloat16": (lens.StandardSAE, lens.StandardSAEConfig(**common, dtype="bfloat16")),
        "topk": (lens.TopKSAE, lens.TopKSAEConfig(**common, k=K)),
        "topk_by_norm": (lens.TopKSAE, lens.TopKSAEConfig(**common, k=K, rescale_acts_by_decoder_norm=True)),
        "jumprelu": (lens.JumpReLUSAE, lens.JumpReLUSAEConfig(**common)),
        "gated": (lens.GatedSAE, lens.GatedSAEConfig(**common)),
        "hook_z": (lens.StandardSAE, lens.StandardSAEConfig(**common, reshape_activations="hook_z")),
        "transcoder": (t.Transcoder, t.TranscoderConfig(**across)),
        "skip_transcoder": (t.SkipTranscoder, t.SkipTranscoderConfig(**across)),
        "jumprelu_transcoder": (t.JumpReLUTranscoder, t.JumpReLUTranscoderConfig(**across)),
        "jumprelu_skip_transcoder": (t.JumpReLUSkipTranscoder, t.JumpReLUSkipTranscoderConfig(**across)),
    }


def make_saelens(lens: Any) -> None:
    """What SAELens saves, and what it computes once it has loaded that again."""
    for name, (kind, config) in saelens_cases(lens).items():
        config.metadata.hook_name = "blocks.3.attn.hook_z" if name == "hook_z" else HOOK
        config.metadata.model_name = "tiny"
        if "transcoder" in name:
            config.metadata.hook_name, config.metadata.hook_name_out = "blocks.3.mlp.hook_in", OUT
        made = kind(config)
        randomise(made, name)
        folder = fresh(f"saelens/{name}")
        made.save_model(folder)
        loaded = lens.SAE.load_from_disk(folder, dtype="float32")
        x = inputs(name)
        seen = x.view(ROWS, 2, READ // 2) if name == "hook_z" else x
        keep(folder, x, loaded.encode(seen), loaded(seen).reshape(ROWS, -1))
    make_saelens_trained(lens)
    make_saelens_scaled(lens)
    make_saelens_old(lens)
    make_gemma(lens)


def make_saelens_trained(lens: Any) -> None:
    """Dictionaries whose architecture changes when training is over: as they are then, and while it lasts."""
    for name, kind, config, more in (
        ("batchtopk", lens.BatchTopKTrainingSAE, lens.BatchTopKTrainingSAEConfig, {}),
        (
            "matryoshka_batchtopk",
            lens.MatryoshkaBatchTopKTrainingSAE,
            lens.MatryoshkaBatchTopKTrainingSAEConfig,
            {"matryoshka_widths": [4, LATENTS]},
        ),
    ):
        made = kind(config(d_in=READ, d_sae=LATENTS, k=K, **more))
        made.cfg.metadata.hook_name = HOOK
        randomise(made, name)
        made.topk_threshold.fill_(0.8)
        after, during = fresh(f"saelens/{name}"), fresh(f"saelens/{name}_checkpoint")
        made.save_model(during)
        made.save_inference_model(after)
        loaded = lens.SAE.load_from_disk(after)
        x = inputs(name)
        for folder in (after, during):
            keep(folder, x, loaded.encode(x), loaded(x))


def make_saelens_scaled(lens: Any) -> None:
    """Training checkpoints on scaled activations, with the scale beside them; folded by SAELens here."""
    for name in ("standard", "topk_by_norm"):
        kind, config = saelens_cases(lens)[name]
        config.metadata.hook_name, config.normalize_activations = HOOK, "expected_average_only_in"
        made = kind(config)
        randomise(made, f"scaled_{name}")
        folder = fresh(f"saelens/scaled_{name}")
        made.save_model(folder)
        (folder / "activation_scaler.json").write_text(json.dumps({"scaling_factor": 0.37}))
        loaded = lens.SAE.load_from_disk(folder)
        loaded.fold_activation_norm_scaling_factor(0.37)
        x = inputs(name) / 0.37
        keep(folder, x, loaded.encode(x), loaded(x))


def make_saelens_old(lens: Any) -> None:
    """The flat record of versions before 6, which SAELens still loads."""
    for name in ("standard", "topk"):
        source, folder = HERE / "saelens" / name, fresh(f"saelens/before_6_{name}")
        shutil.copy(source / "sae_weights.safetensors", folder)
        old: dict[str, Any] = {
            "d_in": READ,
            "d_sae": LATENTS,
            "dtype": "torch.float32",
            "device": "cpu",
            "model_name": "tiny",
            "hook_point": HOOK,
            "hook_point_layer": 3,
            "hook_point_head_index": None,
            "activation_fn_str": "relu",
            "normalize_activations": False,
            "sae_lens_training_version": "3.11.0",
        }
        if name == "topk":
            old |= {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}}
        (folder / "cfg.json").write_text(json.dumps(old))
        loaded = lens.SAE.load_from_disk(folder)
        x = inputs(name)
        keep(folder, x, loaded.encode(x), loaded(x))


def make_gemma(lens: Any) -> None:
    """Random numbers in the form of Gemma Scope's archives, and what SAELens's loaders make of them."""
    loaders = importlib.import_module("sae_lens.loading.pretrained_sae_loaders")
    for part, inside, across in (
        ("gemma-scope-2b-pt-res", "layer_7/width_16k/average_l0_71", False),
        ("gemma-scope-2b-pt-transcoders", "layer_7/width_16k/average_l0_71", True),
        ("gemma-scope-2-1b-pt", "resid_post/layer_7_width_16k_l0_medium", False),
        ("gemma-scope-2-1b-pt", "transcoder/layer_7_width_16k_l0_medium", True),
    ):
        second = "scope-2-" in part
        folder = fresh(f"gemma_scope{'_2' if second else ''}/{part}/{inside}")
        generator = Seed(0).child("gemma", part, inside).torch()
        shapes = {"w_enc": (READ, LATENTS), "w_dec": (LATENTS, READ), "b_enc": (LATENTS,), "b_dec": (READ,)}
        values = {name: torch.randn(*shape, generator=generator) * 0.6 for name, shape in shapes.items()}
        values["threshold"] = torch.randn(LATENTS, generator=generator).abs() * 0.5
        config = {"architecture": "jump_relu", "model_name": "gemma-3-1b-pt"}
        config["hf_hook_point_in"] = "model.layers.7.output"
        if second and across:
            values["affine_skip_connection"] = torch.randn(READ, READ, generator=generator) * 0.6
            config["affine_connection"] = True
            config["hf_hook_point_in"] = "model.layers.7.pre_feedforward_layernorm.output"
            config["hf_hook_point_out"] = "model.layers.7.post_feedforward_layernorm.output"
        if second:
            save_file(values, folder / "params.safetensors")
            (folder / "config.json").write_text(json.dumps(config))
        else:
            arrays = {name.replace("w_", "W_"): value.numpy() for name, value in values.items()}
            np.savez(folder / "params.npz", **arrays)
        here = {name: list(value.shape) for name, value in values.items()}
        loaders.hf_hub_download = lambda repo_id, filename, here=folder, **_: str(here / Path(filename).name)
        loaders.get_safetensors_tensor_shapes = lambda *_, here=here: here
        load = loaders.gemma_3_sae_huggingface_loader if second else loaders.gemma_2_sae_huggingface_loader
        if across and not second:
            load = loaders.gemma_2_transcoder_huggingface_loader
        sizes = {"d_in": READ, "d_sae": LATENTS} | ({"d_out": READ} if across else {})
        settings, state, _ = load(f"google/{part}", inside, "cpu", cfg_overrides=sizes)
        made = lens.SAE.from_dict(loaders.handle_config_defaulting(settings))
        made.load_state_dict(state)
        x = inputs(inside)
        keep(folder, x, made.encode(x), made(x))


# sparsify and dictionary_learning: make


def make_sparsify(sparsify: Any) -> None:
    """Sparse coders and transcoders; the folders are named after modules."""
    for name, module, settings in (
        ("topk", "layers.3", {}),
        ("skip", "layers.3", {"skip_connection": True}),
        ("transcoder", "layers.3.mlp", {"transcode": True}),
        ("skip_transcoder", "layers.3.mlp", {"transcode": True, "skip_connection": True}),
    ):
        made = sparsify.SparseCoder(READ, sparsify.SparseCoderConfig(num_latents=LATENTS, k=K, **settings))
        randomise(made, f"sparsify_{name}")
        folder = fresh(f"sparsify/{name}/{module}")
        made.save_to_disk(folder)
        loaded = sparsify.SparseCoder.load_from_disk(folder)
        x = inputs(name)
        keep(folder, x, sparse_codes(loaded, x), loaded(x).sae_out)


def sparse_codes(coder: Any, x: Tensor) -> Tensor:
    """The codes of a sparse coder, as an array."""
    found = coder.encode(x)
    return torch.zeros(len(x), LATENTS).scatter(1, found.top_indices, found.top_acts)


def make_dictionary_learning(package: Any) -> None:
    """Each class; what its own loader makes of the file is what is compared."""
    d = importlib.import_module("dictionary_learning.dictionary")
    trainers = "dictionary_learning.trainers"
    top = importlib.import_module(f"{trainers}.top_k").AutoEncoderTopK
    batch = importlib.import_module(f"{trainers}.batch_top_k").BatchTopKSAE
    nested = importlib.import_module(f"{trainers}.matryoshka_batch_top_k").MatryoshkaBatchTopKSAE
    for name, made, load in (
        ("AutoEncoder", d.AutoEncoder(READ, LATENTS), d.AutoEncoder.from_pretrained),
        ("AutoEncoderNew", d.AutoEncoderNew(READ, LATENTS), d.AutoEncoderNew.from_pretrained),
        ("GatedAutoEncoder", d.GatedAutoEncoder(READ, LATENTS), d.GatedAutoEncoder.from_pretrained),
        ("JumpReluAutoEncoder", d.JumpReluAutoEncoder(READ, LATENTS), d.JumpReluAutoEncoder.from_pretrained),
        ("AutoEncoderTopK", top(READ, LATENTS, K), top.from_pretrained),
        ("BatchTopKSAE", batch(READ, LATENTS, K), batch.from_pretrained),
        ("MatryoshkaBatchTopKSAE", nested(READ, LATENTS, K, [4, LATENTS - 4]), nested.from_pretrained),
    ):
        randomise(made, name)
        if name in ("BatchTopKSAE", "MatryoshkaBatchTopKSAE"):
            made.threshold.fill_(0.8)
        folder = fresh(f"dictionary_learning/{name}")
        state = made.state_dict()
        torch.save(state, folder / "ae.pt")
        trainer = {"dict_class": name, "lm_name": "tiny", "layer": 3, "submodule_name": "resid_post_layer_3"}
        (folder / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {"io": "out"}}))
        loaded = load(folder / "ae.pt")
        x = inputs(name)
        codes = loaded.encode(x)
        keep(folder, x, codes, loaded.decode(codes))
        (folder / "ae.pt").unlink()  # no pickle is kept: the tests make one of these tensors
        save_file({part: value.contiguous() for part, value in state.items()}, folder / "state.safetensors")


def fresh(name: str) -> Path:
    """An empty folder of the reference."""
    folder = HERE / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


# prosect saves, the peer loads


def dictionaries() -> Iterator[tuple[str, Dictionary]]:
    """Every form a dictionary can have that reads one site and writes one."""
    places = (
        ("resid_post.3", None, False),
        ("z.3", None, False),
        ("mlp_in.3", "mlp_out.3", False),
        ("mlp_in.3", "mlp_out.3", True),
    )
    firing = ((Threshold(), False), (Threshold(), True), (TopK(K), False))
    for (site, target, skip), (sparsity, thresholds) in product(places, firing):
        for centre in ("none", "another") if target else ("none", "another", "the offset"):
            name = f"{site} {target} {skip} {sparsity} {thresholds} {centre}"
            generator = Seed(0).child("saved", name).torch()

            def draw(*shape: int, generator: torch.Generator = generator) -> Tensor:
                return torch.randn(*shape, generator=generator) * 0.6

            offset = draw(READ)
            weights = Weights(
                draw(LATENTS, READ),
                draw(LATENTS),
                {"none": torch.zeros(READ), "another": draw(READ), "the offset": offset.clone()}[centre],
                draw(LATENTS, READ),
                offset,
                draw(READ, READ) if skip else None,
                draw(LATENTS).abs() if thresholds else None,
            )
            made = Dictionary(site, LATENTS, sparsity, target, skip=skip)
            yield name, made.with_weights(weights, {site: READ, target or site: READ})


def compare(format: str, load: Callable[[Path, Tensor], tuple[Tensor, Tensor]]) -> list[Figure]:
    """The largest difference of codes and reconstructions, over every dictionary that the format holds."""
    worst, held = 0.0, 0
    for name, made in dictionaries():
        x = inputs(name)
        with tempfile.TemporaryDirectory() as temporary:
            try:
                folder = save_dictionary(Path(temporary) / "layers.3", made, format)
            except Unsupported:
                continue
            codes, out = load(folder, x)
        mine = made.encode({made.reads[0]: x}).dense()
        back = made.reconstruct({made.reads[0]: x})[made.writes[0]]
        held += 1
        worst = max(worst, float((codes - mine).abs().max()), float((out - back).abs().max()))
    return [
        Figure(f"{format}: dictionaries saved here that it loads", held, bar=">= 1"),
        Figure(f"{format}: largest difference of its codes and reconstructions", worst, bar=BAR),
    ]


def load_saelens(lens: Any) -> Callable[[Path, Tensor], tuple[Tensor, Tensor]]:
    """SAELens's own way of loading and computing."""

    def load(folder: Path, x: Tensor) -> tuple[Tensor, Tensor]:
        made = lens.SAE.load_from_disk(folder)
        seen = x.view(len(x), 2, -1) if made.cfg.reshape_activations == "hook_z" else x
        return made.encode(seen), made(seen).reshape(len(x), -1)

    return load


def load_sparsify(sparsify: Any) -> Callable[[Path, Tensor], tuple[Tensor, Tensor]]:
    """sparsify's own way of loading and computing."""

    def load(folder: Path, x: Tensor) -> tuple[Tensor, Tensor]:
        made = sparsify.SparseCoder.load_from_disk(folder)
        return sparse_codes(made, x), made(x).sae_out

    return load


def main() -> None:
    """Make the reference, or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--make", action="store_true", help="write the files that the tests read")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_grad_enabled(False)
    lens, sparsify = peer("sae_lens"), peer("sparsify")
    if given.make:
        for package, make in (
            (lens, make_saelens),
            (sparsify, make_sparsify),
            (peer("dictionary_learning"), make_dictionary_learning),
        ):
            if package is not None:
                make(package)
        return
    figures: list[Figure] = []
    if lens is not None:
        figures += compare("saelens", load_saelens(lens))
    if sparsify is not None:
        figures += compare("sparsify", load_sparsify(sparsify))
    if not report(figures, given.json):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
