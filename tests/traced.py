"""A model and a text in which every activation says where it comes from."""

from types import MappingProxyType

import torch

from prosect.core.errors import UnknownName
from prosect.core.seeds import Seed
from prosect.data.batch import Batch, Row

SITES = ("resid_post.0", "z.0")


class Text:
    """Documents of random length; every token is a number of its own, so rows can be traced."""

    units = MappingProxyType({"explore": 40, "empty": 0})
    unit = "document"
    digest = "text"

    def __init__(self, documents=40):
        generator = Seed(3).child("lengths").torch()
        self.lengths = torch.randint(3, 12, (documents,), generator=generator).tolist()
        self.asked = 0

    def batches(self, part, rows=32):
        if part not in self.units:
            raise UnknownName("part", part, self.units)
        token = 1
        documents = self.lengths if part == "explore" else []
        for start in range(0, len(documents), rows):
            lengths = documents[start : start + rows]
            ids = torch.zeros(len(lengths), max(lengths), dtype=torch.long)
            for i, length in enumerate(lengths):
                ids[i, :length] = torch.arange(token, token + length)
                token += length
            mask = torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]
            self.asked += 1
            yield Batch({"input_ids": ids}, mask, tuple(Row(start + i) for i in range(len(lengths))))

    @property
    def count(self):
        return sum(self.lengths)


class Model:
    """Every site is a function of the token alone, padding included."""

    digest = "model"

    def __init__(self, bad_token=None, dies_at=None):
        self.runs, self.options = 0, None
        self.bad_token, self.dies_at = bad_token, dies_at

    def run(self, batch, capture=(), **options):
        if self.runs == self.dies_at:
            raise KeyboardInterrupt
        self.runs += 1
        self.options = options
        ids = batch.tensors["input_ids"].float()
        x = torch.stack([ids, ids * 2, -ids, torch.sin(ids)], dim=-1)
        if self.bad_token is not None:
            x[ids == self.bad_token] = float("nan")
        trace = {"resid_post.0": x, "z.0": x.reshape(*ids.shape, 2, 2), "probs.0": x[..., None, :]}
        return {site: trace[site] for site in capture}


def everything(stream, site="resid_post.0"):
    return torch.cat([block[site] for block in stream.blocks()])
