"""The hub: used for a hub id alone, through two functions, and never in these tests."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch

import folders
from prosect.core.errors import BadInput, UnknownName, UnsafeFile
from prosect.decompose import pretrained
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.pretrained import load_dictionary, push_to_hub, save_dictionary


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one repository, which remembers what it was asked for."""
    root = tmp_path / "hub"
    for name in ("layer_3", "layers/4"):
        (root / name).mkdir(parents=True)
        folders.saelens(root / name, "standard")
    asked = []

    def snapshot_download(repository, revision=None, allow_patterns=None):
        asked.append((repository, revision, sorted(allow_patterns)))
        if repository != "owner/name":
            raise huggingface_hub.errors.LocalEntryNotFoundError(f"no {repository}\nand more")
        return str(root)

    class Api:
        def list_repo_files(self, repository, revision=None):
            return [str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()]

        def create_repo(self, repository, private, exist_ok):
            asked.append(("create", repository, private, exist_ok))

        def upload_folder(self, folder_path, repo_id, path_in_repo, commit_message):
            asked.append(("upload", repo_id, path_in_repo, commit_message))
            shutil.copytree(folder_path, root / (path_in_repo or "."), dirs_exist_ok=True)
            return SimpleNamespace(commit_url="https://hub/commit/1")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.chdir(tmp_path)
    return asked


@pytest.mark.parametrize(
    ("where", "subfolder", "inside"),
    [
        ("owner/name/layer_3", "", "layer_3"),
        ("owner/name", "layer_3", "layer_3"),
        ("owner/name", "/layers/4/", "layers/4"),
        ("owner/name/layers/", "4", "layers/4"),
    ],
)
def test_a_hub_id(hub, where, subfolder, inside):
    found = load_dictionary(where, subfolder=subfolder, revision="v1")
    assert found.reads == ("resid_post.3",)
    ((repository, revision, patterns),) = hub
    assert (repository, revision) == ("owner/name", "v1")
    assert f"{inside}/sae_weights.safetensors" in patterns
    assert all(p.startswith(f"{inside}/") and "*" not in p for p in patterns)  # nothing else is fetched


def test_a_folder_here_goes_before_the_hub(hub, tmp_path):
    here = tmp_path / "owner" / "name"
    here.mkdir(parents=True)
    folders.saelens(here, "topk")
    assert load_dictionary("owner/name").sparsity.name == "topk"
    assert hub == []


def test_what_the_hub_does_not_have(hub, tmp_path):
    with pytest.raises(UnknownName, match=r"layer_3.*subfolder= one of layer_3, layers/4"):
        load_dictionary("owner/name/layer_4")
    with pytest.raises(UnknownName, match="layer_3"):
        load_dictionary("owner/name")
    with pytest.raises(BadInput, match=r"other/name.*\(no other/name\)") as caught:
        load_dictionary("other/name")
    assert "more" not in str(caught.value)
    asked = len(hub)
    for never in (
        "./not/there",
        "/not/there",
        "~/not/there",
        "one",
        "a b/c",
        "",
        tmp_path / "owner" / "name",
    ):
        with pytest.raises(BadInput):
            load_dictionary(never)
    assert len(hub) == asked  # none of these is a hub id


def test_a_folder_outside_the_repository(hub):
    for where in ("owner/name/../../etc", "owner/name/layer_3/../.."):
        with pytest.raises(UnsafeFile):
            load_dictionary(where)
    with pytest.raises(UnsafeFile):
        load_dictionary("owner/name", subfolder="..")
    assert hub == []


def test_offline_says_so():
    """The tests run with the hub switched off; its client's own error comes through as bad input."""
    with pytest.raises(BadInput, match="nobody/nothing, which is no folder here"):
        load_dictionary("nobody/nothing")


def test_pushing(hub, tmp_path):
    made = load_dictionary(tmp_path / "hub" / "layer_3")
    url = push_to_hub(made, "owner/name", subfolder="mine/5", private=True, metadata={"model_name": "gpt2"})
    assert url == "https://hub/commit/1"
    assert hub == [
        ("create", "owner/name", True, True),
        ("upload", "owner/name", "mine/5", "Upload dictionary"),
    ]
    config = json.loads((tmp_path / "hub" / "mine" / "5" / "cfg.json").read_text())
    assert config["metadata"]["model_name"] == "gpt2"
    x = torch.randn(9, folders.READ, generator=torch.Generator().manual_seed(0))
    back = load_dictionary("owner/name/mine/5")
    one, other = (d.encode({d.reads[0]: x}).dense() for d in (made, back))
    assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("name", ["name", "owner/name/sub", "", "owner/", "ow ner/name"])
def test_pushing_to_no_repository(hub, tmp_path, name):
    made = load_dictionary(tmp_path / "hub" / "layer_3")
    with pytest.raises(BadInput, match="owner/name"):
        push_to_hub(made, name)
    assert hub == []


def test_a_refusal_of_the_hub(hub, tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise huggingface_hub.errors.OfflineModeIsEnabled("offline")

    made = load_dictionary(tmp_path / "hub" / "layer_3")
    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuse)
    with pytest.raises(BadInput, match="offline"):
        push_to_hub(made, "owner/name")


def test_loading_and_saving_touch_no_network(tmp_path, monkeypatch):
    def never(*_, **__):
        raise AssertionError("the network")

    monkeypatch.setattr(pretrained, "download", never)
    monkeypatch.setattr(pretrained, "upload", never)
    made = load_dictionary(folders.saelens(tmp_path, "gated").folder)
    assert load_dictionary(save_dictionary(tmp_path / "d", made)).reads == made.reads
    assert load_dictionary(Path(tmp_path, "d", "cfg.json")).reads == made.reads


def test_the_names_that_people_look_for(hub, tmp_path):
    """`from_pretrained`, `save_pretrained` and `push_to_hub` are the functions, whatever class they are asked of."""
    made = Dictionary.from_pretrained("owner/name", subfolder="layer_3")
    again = Dictionary.from_pretrained(made.save_pretrained(tmp_path / "kept", format="prosect"))
    assert torch.equal(again.encoder_, made.encoder_) and again.reads == made.reads
    assert made.push_to_hub("owner/name", subfolder="mine").startswith("https://hub")
    assert torch.equal(Dictionary.from_pretrained("owner/name/mine").decoder_, made.decoder_)
