"""What is loaded computes what the project that wrote it does: its formula in NumPy, and its own answers."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import folders
from prosect.decompose.pretrained import import_dictionary

REFERENCE = Path(__file__).parent / "reference"
KEPT = sorted(path.parent for path in REFERENCE.rglob("expected.safetensors"))


def close(imported, x, codes, out, atol=1e-6):
    """The codes and reconstructions of what was loaded, against those expected; relative to their size."""
    made = imported.dictionary
    x, codes, out = (torch.as_tensor(np.asarray(v), dtype=torch.float32) for v in (x, codes, out))
    found = made.encode({made.reads[0]: x}).dense()
    back = made.reconstruct({made.reads[0]: x})[made.writes[0]]
    assert (codes != 0).any() and (codes == 0).any()
    assert float((found - codes).abs().max()) <= atol * max(1.0, float(codes.abs().max()))
    assert float((back - out).abs().max()) <= atol * max(1.0, float(out.abs().max()))


@pytest.mark.parametrize("architecture", folders.SAELENS)
def test_saelens(tmp_path, architecture):
    made = folders.saelens(tmp_path, architecture)
    found = import_dictionary(tmp_path)
    close(found, made.x, made.codes, made.out)
    assert (found.format, found.architecture) == ("saelens", architecture)
    across = "transcoder" in architecture
    assert found.dictionary.reads == (("mlp_in.3",) if across else ("resid_post.3",))
    assert found.dictionary.writes == (("mlp_out_post.3",) if across else ("resid_post.3",))


@pytest.mark.parametrize("architecture", ["standard", "jumprelu", "gated", "topk"])
def test_saelens_without_subtracting_the_decoders_bias(tmp_path, architecture):
    made = folders.saelens(tmp_path, architecture, apply_b_dec_to_input=False)
    close(import_dictionary(tmp_path), made.x, made.codes, made.out)


@pytest.mark.parametrize("architecture", ["topk", "batchtopk"])
def test_saelens_codes_times_decoder_norms(tmp_path, architecture):
    made = folders.saelens(tmp_path, architecture, by_norm=True)
    found = import_dictionary(tmp_path)
    close(found, made.x, made.codes, made.out)
    assert "unit" in found.dictionary.supports
    assert any("norms" in line for line in found.folded)


@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu", "gated", "batchtopk"])
def test_saelens_on_scaled_activations(tmp_path, architecture):
    """y for x is what the formula gives for s x, divided by s."""
    made = folders.saelens(tmp_path, architecture, normalize_activations="expected_average_only_in")
    found = import_dictionary(tmp_path, scale=0.25)
    close(found, made.x / 0.25, made.codes, made.out / 0.25)
    assert any("0.25" in line for line in found.folded)


@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu", "gated", "skip_transcoder"])
def test_saelens_on_a_stream_without_its_mean(tmp_path, architecture):
    """With the mean on, the codes are those of the formula without it; and without it they are the same."""
    made = folders.saelens(tmp_path, architecture)
    found = import_dictionary(tmp_path, sites="resid_post.3", mean_free=True)
    x = made.x - made.x.mean(axis=1, keepdims=True)
    without = import_dictionary(tmp_path, sites="resid_post.3", mean_free=False).dictionary
    codes = without.encode({"resid_post.3": torch.from_numpy(x)}).dense()
    out = without.reconstruct({"resid_post.3": torch.from_numpy(x)})[without.writes[0]]
    close(found, made.x, codes, out, atol=2e-6)
    close(found, x, codes, out, atol=2e-6)
    assert any("mean" in line for line in found.folded)


def test_what_the_files_say_of_the_mean(tmp_path):
    """It is off the stream and what is added to it, not off what lies inside a block."""
    folders.saelens(tmp_path, "standard")
    path = tmp_path / "cfg.json"
    config = json.loads(path.read_text())
    for hook, kwargs, off in (
        ("blocks.3.hook_resid_post", {"center_writing_weights": True}, True),
        ("blocks.3.hook_mlp_out", {"center_writing_weights": True}, True),
        ("blocks.3.attn.hook_z", {"center_writing_weights": True}, False),
        ("blocks.3.hook_resid_post", {"center_writing_weights": False}, False),
        ("blocks.3.hook_resid_post", {}, False),
    ):
        config["metadata"] |= {"hook_name": hook, "model_from_pretrained_kwargs": kwargs}
        path.write_text(json.dumps(config))
        for asked in (None, True, False):
            rows = import_dictionary(tmp_path, mean_free=asked).dictionary.encoder_
            assert bool((rows.mean(dim=1).abs() < 1e-6).all()) == (off if asked is None else asked)


@pytest.mark.parametrize("kind", folders.SPARSIFY)
def test_sparsify(tmp_path, kind):
    made = folders.sparsify(tmp_path, kind)
    found = import_dictionary(made.folder)
    close(found, made.x, made.codes, made.out)
    across = "transcoder" in kind
    assert found.dictionary.reads == (("mlp_in.3",) if across else ("resid_post.3",))
    assert found.dictionary.writes == (("mlp_out.3",) if across else ("resid_post.3",))


@pytest.mark.parametrize("kind", folders.LEARNING)
def test_dictionary_learning(tmp_path, kind):
    made = folders.learning(tmp_path, kind)
    found = import_dictionary(tmp_path, allow_pickle=True)
    close(found, made.x, made.codes, made.out)
    assert found.dictionary.reads == ("resid_post.3",)
    assert found.architecture == kind


def test_gemma_scope(tmp_path):
    made = folders.gemma(tmp_path)
    found = import_dictionary(made.folder)
    close(found, made.x, made.codes, made.out)
    assert found.dictionary.reads == ("resid_post.7",)
    assert found.metadata["model_name"] == "gemma-2-2b"


@pytest.mark.parametrize("kind", ["autoencoder", "transcoder", "skip transcoder"])
def test_gemma_scope_2(tmp_path, kind):
    made = folders.gemma_2(tmp_path, kind)
    found = import_dictionary(tmp_path)
    close(found, made.x, made.codes, made.out)
    across = kind != "autoencoder"
    assert found.dictionary.reads == (("mlp_in.9",) if across else ("resid_post.9",))
    assert found.dictionary.writes == (("mlp_out_post.9",) if across else ("resid_post.9",))


@pytest.mark.parametrize("folder", KEPT, ids=[str(path.relative_to(REFERENCE)) for path in KEPT])
def test_what_the_projects_themselves_computed(tmp_path, folder):
    """Files that SAELens, sparsify and dictionary_learning wrote, and what they made of them."""
    expected = load_file(folder / "expected.safetensors")
    if (folder / "state.safetensors").exists():  # no pickle is kept in the repository
        torch.save(load_file(folder / "state.safetensors"), tmp_path / "ae.pt")
        (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
        folder = tmp_path
    found = import_dictionary(folder, allow_pickle=True)
    close(found, *(expected[name] for name in ("x", "codes", "out")), atol=1e-5)


def test_the_reference_is_whole():
    assert len(KEPT) == 35
