"""The networks that see, trained a little: their bank, their silent channels, their maps, their data."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from prosect.core.errors import TooLittleData, UnknownName
from prosect.model.edits import patch
from prosect.organisms.vision import bank, digits, drawings, shapes


@pytest.fixture(scope="module", params=["shapes", "digits"])
def opened(request):
    room = {"shapes": shapes, "digits": digits}[request.param]
    with pytest.MonkeyPatch.context() as context:
        context.setattr(room, "EPOCHS", 4)
        if room is shapes:
            context.setattr(room, "IMAGES", 512)
        context.setattr(room, "train", room.train.__wrapped__)
        model, truth = room.build(1)
    return room, model, truth, next(room.source(1).batches("explore", rows=300)).tensors["images"]


def test_the_bank_is_as_the_truth_says_after_training(opened):
    room, model, truth, _ = opened
    for v in truth.variables:
        found = model.module.bank.weight[v.index, 0].detach().double().numpy()
        if v.kind != "nothing":
            assert np.abs(found - bank.filter_of(v.kind, v.parameters["angle"], room.SIZE)).max() < 1e-6
    assert [v.index for v in truth.variables] == list(range(len(room.detectors(1))))
    assert len({(v.kind, v.parameters.get("angle")) for v in truth.variables}) > 8


def test_silent_channels_do_nothing_and_others_something(opened):
    _, model, truth, images = opened
    clean = model.run({"images": images}, capture=("act",))
    for v in truth.variables:
        value = clean["act"].clone()
        value[:, v.index] = 0
        moved = (model.run({"images": images}, edits=[patch("act", value)]).output - clean.output).abs().max()
        assert (moved > 1e-4) == (v.effect is None)
        left = truth.quantities[f"accuracy without channel {v.index}"]
        assert left == truth.quantities["accuracy"] or v.effect is None
    assert sum(v.effect is not None for v in truth.variables) == 2


def test_what_each_place_adds_to_a_class_adds_up_to_its_logit(opened):
    _, model, _, images = opened
    seen = model.run({"images": images}, capture=("features",))
    maps = torch.einsum("nkhw,ck->nchw", seen["features"], model.module.head.weight)
    total = maps.mean(dim=(2, 3)) + model.module.head.bias
    assert torch.allclose(total, seen.output, atol=1e-4)


def test_it_learned_something_and_labels_are_of_the_images(opened):
    room, model, truth, images = opened
    names = list(drawings.CLASSES) if room is shapes else list(map(str, range(10)))
    labels = np.stack([truth.labels[f"{name}@explore"] for name in names])
    assert (labels.sum(axis=0) == 1).all()
    said = model.run({"images": images}).output.argmax(dim=1).numpy()
    right = (said == labels.argmax(axis=0)[:300]).mean()
    assert right > truth.quantities["chance"] + 0.2
    units = room.source(1).units
    for part in ("validate.0", "validate.1", "sealed", "shift"):
        assert len(truth.labels[f"{names[0]}@{part}"]) == units[part]


def test_drawings_are_those_of_the_source():
    for part in ("validate.1", "explore.second", "shift"):
        batch = next(shapes.source(2).batches(part, rows=50))
        found = shapes.drawings(2, part, np.arange(50))
        assert torch.equal(found.images, batch.tensors["images"])
    with pytest.raises(UnknownName):
        shapes.drawings(2, "validate.9")


def test_a_digit_is_in_one_part_only_and_never_trained_on():
    data = load_digits()
    images = {
        (x / 16).astype(np.float32).tobytes(): int(y) for x, y in zip(data.images, data.target, strict=True)
    }
    source = digits.source(0)
    every, _ = digits.every()
    trained = {x.numpy().tobytes() for x in every[digits._order(0)[: digits.TRAINED]]}
    seen = set()
    for part in ("explore", "validate.0", "validate.1", "sealed"):
        found = [x.numpy().tobytes() for b in source.batches(part, 500) for x in b.tensors["images"]]
        assert len(set(found)) == source.units[part] and not seen & set(found)
        seen |= set(found)
    assert seen <= set(images) and not seen & trained
    with pytest.raises(TooLittleData):
        digits.source(0, explore=900)
