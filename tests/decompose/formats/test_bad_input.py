"""Folders that are damaged, incomplete, unknown or dangerous are refused, and the message says what is wrong."""

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import folders
from prosect.core.errors import (
    BadInput,
    Conflict,
    NotFinite,
    ShapeMismatch,
    UnknownName,
    UnsafeFile,
    Unsupported,
)
from prosect.decompose.pretrained import import_dictionary, load_dictionary


def changed(folder, **settings):
    """Settings changed in, or removed from (None), the folder's configuration."""
    path = next(p for p in (folder / "cfg.json", folder / "config.json") if p.exists())
    config = json.loads(path.read_text())
    for name, value in settings.items():
        config[name] = value
        if value is None:
            del config[name]
    path.write_text(json.dumps(config))


def tampered(folder, change):
    """The folder's tensors after ``change(tensors)``."""
    path = next(folder.glob("sa*.safetensors"))
    tensors = load_file(path)
    change(tensors)
    save_file({name: t.contiguous() for name, t in tensors.items()}, path)


@pytest.fixture(params=["saelens", "sparsify"])
def folder(request, tmp_path):
    """A folder of either project whose weights are safetensors."""
    if request.param == "saelens":
        return folders.saelens(tmp_path, "topk").folder
    return folders.sparsify(tmp_path, "topk").folder


def test_a_missing_tensor(folder):
    tampered(folder, lambda t: t.pop("W_dec"))
    with pytest.raises(BadInput, match="without 'W_dec'"):
        load_dictionary(folder)


def test_a_tensor_of_which_nothing_is_known(folder):
    tampered(folder, lambda t: t.update(W_mystery=torch.ones(2)))
    with pytest.raises(BadInput, match="W_mystery"):
        load_dictionary(folder)


def test_transposed_weights(folder):
    tampered(folder, lambda t: t.update(W_dec=t["W_dec"].T))
    with pytest.raises(ShapeMismatch, match="transpose"):
        load_dictionary(folder)


def test_weights_of_another_size(folder):
    changed(folder, d_in=folders.READ + 1)
    with pytest.raises(ShapeMismatch, match=str(folders.READ + 1)):
        load_dictionary(folder)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite(folder, bad):
    tampered(folder, lambda t: t["b_dec"].__setitem__(1, bad))
    with pytest.raises(NotFinite, match="b_dec"):
        load_dictionary(folder)


@pytest.mark.parametrize("dtype", [torch.int32, torch.float8_e4m3fn])
def test_numbers_of_another_type(folder, dtype):
    tampered(folder, lambda t: t.update(b_dec=t["b_dec"].to(dtype)))
    with pytest.raises(BadInput, match=f"b_dec of {dtype}"):
        load_dictionary(folder)


def test_a_file_cut_short(folder):
    path = next(folder.glob("sa*.safetensors"))
    whole = path.read_bytes()
    for length in (0, 4, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(BadInput, match="safetensors"):
            load_dictionary(folder)


def test_a_missing_or_broken_configuration(folder):
    path = folder / "cfg.json"
    for text in ("", "{", "[]", "\x00"):
        path.write_text(text)
        with pytest.raises(BadInput, match="JSON"):
            load_dictionary(folder)
    path.write_bytes(b"\xff\xfe{}")
    with pytest.raises(BadInput, match="JSON"):
        load_dictionary(folder)
    path.unlink()
    with pytest.raises(BadInput, match=r"without cfg\.json"):
        load_dictionary(folder)


@pytest.mark.parametrize("name", ["d_in", "k"])
@pytest.mark.parametrize("value", [None, 0, -1, 2.5, "4", True, [3]])
def test_settings_that_make_no_sense(folder, name, value):
    changed(folder, **{name: value})
    with pytest.raises(BadInput, match=name):
        load_dictionary(folder)


def test_more_latents_kept_than_there_are(folder):
    changed(folder, k=folders.LATENTS + 1)
    with pytest.raises(BadInput, match="k = 13"):
        load_dictionary(folder)


def test_a_pickle_under_another_name(folder):
    path = next(folder.glob("sa*.safetensors"))
    torch.save({"x": torch.ones(2)}, path)
    with pytest.raises(UnsafeFile, match="pickle"):
        load_dictionary(folder)
    path.write_bytes(pickle.dumps({"x": 1}))
    with pytest.raises(UnsafeFile, match="pickle"):
        load_dictionary(folder)


@pytest.mark.parametrize(
    "metadata", ["text", [1], {"hook_name": 3}, {"hook_head_index": "a"}, {"prosect": 1}]
)
def test_saelens_metadata_that_make_no_sense(tmp_path, metadata):
    folders.saelens(tmp_path, "standard", metadata=metadata)
    with pytest.raises(BadInput):
        load_dictionary(tmp_path, sites="x")


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"architecture": "temporal"}, Unsupported, "other positions"),
        ({"architecture": "abstopk"}, Unsupported, "either sign"),
        ({"architecture": "gatde"}, UnknownName, "gated"),
        ({"normalize_activations": "layer_norm"}, Unsupported, "standard deviation"),
        ({"normalize_activations": "constant_norm_rescale"}, Unsupported, "own norm"),
        ({"normalize_activations": "covariance_whitening"}, Unsupported, "whitened"),
        ({"normalize_activations": "something"}, UnknownName, "normalize_activations"),
        ({"apply_b_dec_to_input": "yes"}, BadInput, "true or false"),
        ({"normalize_activations": "expected_average_only_in"}, BadInput, "scale="),
        ({"metadata": {"sae_lens_version": "6.0.0"}}, BadInput, "sites="),
    ],
)
def test_what_saelens_says_and_cannot_be_held(tmp_path, settings, error, words):
    changed(folders.saelens(tmp_path, "standard").folder, **settings)
    with pytest.raises(error, match=words):
        load_dictionary(tmp_path)


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"activation_fn_str": "tanh-relu"}, "tanh-relu"), ({"finetuning_scaling_factor": True}, "afterwards")],
)
def test_what_saelens_said_before_6_and_cannot_be_held(tmp_path, settings, words):
    folders.saelens(tmp_path, "standard", metadata=None, hook_point="blocks.0.hook_resid_pre")
    assert load_dictionary(tmp_path).reads == ("resid_pre.0",)
    changed(tmp_path, **settings)
    with pytest.raises(Unsupported, match=words):
        load_dictionary(tmp_path)


def test_factors_on_codes(tmp_path):
    """Old files hold factors that are all 1, which change nothing; others would."""
    made = folders.saelens(tmp_path, "standard")
    tampered(tmp_path, lambda t: t.update(scaling_factor=torch.ones(folders.LATENTS)))
    codes = load_dictionary(tmp_path).encode({"resid_post.3": torch.from_numpy(made.x)}).dense()
    assert torch.allclose(codes, torch.from_numpy(made.codes), atol=1e-5)
    tampered(tmp_path, lambda t: t.update(scaling_factor=torch.full((folders.LATENTS,), 1.5)))
    with pytest.raises(Unsupported, match="scaling_factor"):
        load_dictionary(tmp_path)


def test_scales(tmp_path):
    folders.saelens(tmp_path, "transcoder")
    with pytest.raises(Unsupported, match="transcoder"):
        load_dictionary(tmp_path, scale=2.0)
    for sub, bad in enumerate((0.0, -1.0, float("nan"), float("inf"))):
        (tmp_path / str(sub)).mkdir()
        folders.saelens(tmp_path / str(sub), "standard")
        with pytest.raises(BadInput, match="scale"):
            load_dictionary(tmp_path / str(sub), scale=bad)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"activation": "groupmax"}, Unsupported),
        ({"activation": "gelu"}, UnknownName),
        ({"signed": True}, UnknownName),
        ({"prosect": "x"}, BadInput),
    ],
)
def test_what_sparsify_says_and_cannot_be_held(tmp_path, settings, error):
    made = folders.sparsify(tmp_path, "topk")
    changed(made.folder, **settings)
    with pytest.raises(error):
        load_dictionary(made.folder)


def test_a_sparsify_folder_that_is_named_after_no_module(tmp_path):
    made = folders.sparsify(tmp_path, "transcoder")
    moved = made.folder.rename(tmp_path / "best")
    with pytest.raises(BadInput, match="sites="):
        load_dictionary(moved)
    with pytest.raises(BadInput, match=r"what .* writes"):
        load_dictionary(moved, sites="x")
    assert load_dictionary(moved, sites="x", targets="y").writes == ("y",)


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('it ran')",))


def test_pickles_take_a_word(tmp_path):
    folders.learning(tmp_path, "AutoEncoder")
    with pytest.raises(UnsafeFile, match="allow_pickle=True"):
        load_dictionary(tmp_path)
    torch.save({"bias": Evil()}, tmp_path / "ae.pt")
    with pytest.raises(UnsafeFile, match="more than weights"):
        load_dictionary(tmp_path, allow_pickle=True)
    torch.save([torch.ones(2)], tmp_path / "ae.pt")
    with pytest.raises(BadInput, match="tensors by name"):
        load_dictionary(tmp_path, allow_pickle=True)
    for content in (b"", b"PK\x03\x04 not a whole archive"):
        (tmp_path / "ae.pt").write_bytes(content)
        with pytest.raises(BadInput):
            load_dictionary(tmp_path, allow_pickle=True)


@pytest.mark.parametrize(
    ("trainer", "error"),
    [
        ({"dict_class": "AutoEncoderTopKK"}, UnknownName),
        ({"dict_class": None}, UnknownName),
        ({"dict_class": 3}, BadInput),
        ({"submodule_name": "mine"}, BadInput),
    ],
)
def test_what_dictionary_learning_says_and_cannot_be_held(tmp_path, trainer, error):
    folders.learning(tmp_path, "AutoEncoder", **trainer)
    with pytest.raises(error):
        load_dictionary(tmp_path, allow_pickle=True)


@pytest.mark.parametrize("kind", ["BatchTopKSAE", "MatryoshkaBatchTopKSAE"])
def test_a_threshold_that_training_never_set(tmp_path, kind):
    folders.learning(tmp_path, kind)
    state = torch.load(tmp_path / "ae.pt", weights_only=True)
    torch.save({**state, "threshold": torch.tensor(-1.0)}, tmp_path / "ae.pt")
    with pytest.raises(BadInput, match="never set"):
        load_dictionary(tmp_path, allow_pickle=True)


def test_archives_of_gemma_scope(tmp_path):
    path = folders.gemma(tmp_path).folder / "params.npz"
    with np.load(path) as archive:
        arrays = dict(archive)
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"nothing like it"):
        path.write_bytes(content)
        with pytest.raises(BadInput):
            load_dictionary(path)
    np.savez(path, **{**arrays, "b_dec": np.array([object()] * folders.READ)})
    with pytest.raises(UnsafeFile, match="pickle"):
        load_dictionary(path)
    np.savez(path, **{name: a for name, a in arrays.items() if name != "threshold"})
    with pytest.raises(BadInput, match="threshold"):
        load_dictionary(path)
    np.savez(path, **{**arrays, "W_enc": arrays["W_enc"].T})
    with pytest.raises(ShapeMismatch):
        load_dictionary(path)
    np.savez(path, **arrays)
    assert load_dictionary(path).reads == ("resid_post.7",)  # a file stands for its folder
    bare = tmp_path / "bare"
    bare.mkdir()
    path.rename(bare / "params.npz")
    with pytest.raises(BadInput, match="sites="):
        load_dictionary(bare)


def test_folders_of_gemma_scope_2(tmp_path):
    folders.gemma_2(tmp_path, "autoencoder")
    changed(tmp_path, architecture="topk")
    with pytest.raises(UnknownName, match="jump_relu"):
        load_dictionary(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(BadInput, match="sites="):
        load_dictionary(tmp_path)
    assert load_dictionary(tmp_path, sites="x").reads == ("x",)
    tensors = load_file(tmp_path / "params.safetensors")
    tensors["w_dec"] = tensors["w_dec"][:, None].repeat(1, 2, 1)  # a cross-layer transcoder's
    save_file(tensors, tmp_path / "params.safetensors")
    with pytest.raises(ShapeMismatch, match="w_dec"):
        load_dictionary(tmp_path, sites="x")


def test_folders_that_hold_none_or_several(tmp_path):
    with pytest.raises(BadInput, match="does not exist"):
        load_dictionary(tmp_path / "nowhere")
    with pytest.raises(BadInput, match="formats saelens"):
        load_dictionary(tmp_path)
    inner = tmp_path / "layers"
    inner.mkdir()
    made = folders.sparsify(inner, "topk")
    with pytest.raises(BadInput, match=r"subfolder= one of layers/layers\.3"):
        load_dictionary(tmp_path)
    assert load_dictionary(tmp_path, subfolder="layers/layers.3").reads == ("resid_post.3",)
    folders.saelens(made.folder, "standard")
    with pytest.raises(Conflict, match="saelens and sparsify"):
        load_dictionary(made.folder)
    assert import_dictionary(made.folder, "saelens").format == "saelens"
    with pytest.raises(UnknownName, match="saelens"):
        load_dictionary(made.folder, "saelans")
    with pytest.raises(BadInput, match=r"without ae\.pt|without config\.json"):
        load_dictionary(made.folder, "dictionary_learning")
    with pytest.raises(BadInput, match="revision"):
        load_dictionary(made.folder, revision="main")


def test_several_sites_where_a_file_holds_one(tmp_path):
    folders.saelens(tmp_path, "standard")
    with pytest.raises(BadInput, match="one site"):
        load_dictionary(tmp_path, sites=("a", "b"))
