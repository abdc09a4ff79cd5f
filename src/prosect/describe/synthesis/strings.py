"""What a string of tokens does to a unit, as something that can be measured on any text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from prosect.core.errors import BadInput
from prosect.core.records import Executable
from prosect.core.seeds import Seed
from prosect.data.batch import Batch
from prosect.data.source import Source
from prosect.describe.executables import parameters_of, reading
from prosect.describe.synthesis.unit import Unit
from prosect.model import Model
from prosect.model.inputs import of_ids
from prosect.model.trace import Trace
from prosect.store.shelf import Shelf

Where = Literal["alone", "inserted", "text"]


@dataclass(frozen=True)
class RandomString:
    """Tokens drawn anew for every row, all equally likely: the control of a string that was searched for.

    Attributes:
        length: tokens to draw.
        vocabulary: they are below this.
        barred: and none of these.
    """

    length: int
    vocabulary: int
    barred: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.length < 1 or not set(range(self.vocabulary)) - set(self.barred):
            raise BadInput(
                f"{self.length} random tokens of {self.vocabulary}, {len(self.barred)} of them barred",
                "at least one token to draw, and one to draw from",
            )

    def draw(self, batch: Batch) -> Int[np.ndarray, "rows length"]:
        """The strings of a batch; a row's depends on its document and offset alone."""
        allowed = np.setdiff1d(np.arange(self.vocabulary), np.array(self.barred, dtype=int))
        seeds = [Seed(0).child("random-string", r.document, r.offset, r.unit) for r in batch.rows]
        return np.stack([s.numpy().choice(allowed, self.length) for s in seeds])


@dataclass(frozen=True)
class StringActivation:
    """A unit with a string of tokens, or without, in standard deviations of the unit on explored text.

    Attributes:
        site: of the unit.
        index: of the unit.
        where: ``alone``: the activation at the string's last token, with nothing but ``prefix`` before it, the same
            number for every row unless the string is random. ``inserted``: the string takes the place of a row's last
            tokens, and the rise of the activation at its last one is measured; a row without a scored token left
            before it has none. ``text``: the largest activation in the row as it is.
        spread: the unit's standard deviation over explored positions: what is measured is divided by it.
        tokens: the string; empty for a random one and for ``text``.
        prefix: tokens before the string when it is alone, such as a beginning-of-text token.
        random: strings drawn anew for each row, in place of ``tokens``.
    """

    site: str
    index: int
    where: Where
    spread: float
    tokens: tuple[int, ...] = ()
    prefix: tuple[int, ...] = ()
    random: RandomString | None = None

    kind = "string-activation"
    version = 1

    def __post_init__(self) -> None:
        given = bool(self.tokens) + (self.random is not None)
        if self.where not in ("alone", "inserted", "text") or given != (self.where != "text"):
            raise BadInput(
                f"a string measured {self.where!r} with {given} strings",
                "text without one; alone or inserted with tokens, or with a random string",
            )
        if not (self.spread > 0 and np.isfinite(self.spread)):
            raise BadInput(f"a unit whose spread is {self.spread}", "more than 0: it must vary on text")

    @classmethod
    def of(cls, executable: Executable, shelf: Shelf) -> StringActivation:
        """What an executable stores.

        Raises:
            BadInput: it is of another kind, or malformed.
            NewerSchema: a later prosect wrote it.
        """
        given = dict(parameters_of(executable, cls.kind, cls.version))
        with reading(cls.kind):
            drawn = given.pop("random", None)
            for name in ("tokens", "prefix"):
                given[name] = tuple(int(t) for t in given.get(name, ()))
            if drawn is not None:
                drawn = RandomString(
                    drawn["length"], drawn["vocabulary"], tuple(int(t) for t in drawn["barred"])
                )
            return cls(**given, random=drawn)

    def executable(self) -> Executable:
        """As stored."""
        named = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}
        if self.random is not None:
            named["random"] = {**vars(self.random), "barred": list(self.random.barred)}
        return Executable(kind=self.kind, version=self.version, parameters=named)

    @property
    def unit(self) -> Unit:
        """What is read."""
        return Unit(self.site, self.index)

    @classmethod
    def measure(
        cls, wanted: Sequence[StringActivation], model: Model, batch: Batch, source: Source
    ) -> Float[np.ndarray, "wanted rows"]:
        """The numbers of each row; one pass for each string, whichever units are read with it.

        Raises:
            UnknownName, Unsupported, BadInput: a site or unit that the model does not have.
            BadInput: rows that are not tokens.
        """
        if "input_ids" not in batch.tensors or batch.mask is None or batch.scored is None:
            raise BadInput("rows without tokens", "text, or sequences of tokens")
        out = np.full((len(wanted), len(batch)), np.nan)
        groups: dict[tuple[object, ...], list[int]] = {}
        for i, one in enumerate(wanted):
            lead = one.prefix if one.where == "alone" else ()
            groups.setdefault((one.where, one.tokens, one.random, lead), []).append(i)
        plain: Trace | None = None
        if any(w.where != "alone" for w in wanted):
            plain = _read(model, batch, [w for w in wanted if w.where != "alone"])
        some = batch.scored.any(dim=1)
        for members in groups.values():
            first = wanted[members[0]]
            mine = [wanted[i] for i in members]
            if first.where == "text":
                assert plain is not None  # run above
                for i in members:
                    x = wanted[i].unit.everywhere(model, plain).double()
                    out[i] = _numbers(x.masked_fill(~batch.scored, -torch.inf).amax(dim=1), some)
            elif first.where == "alone":
                strings = (
                    np.array([first.tokens]) if first.random is None else first.random.draw(batch)
                ).tolist()
                alone = _read(model, model.batch(of_ids([[*first.prefix, *s] for s in strings])), mine)
                for i in members:
                    value = wanted[i].unit.value(model, alone).double()
                    out[i] = _numbers(value.expand(len(batch)), some)
            else:
                assert plain is not None  # run above
                changed, fits = inserted(batch, _strings(first, batch))
                trace = _read(model, changed, mine)
                for i in members:
                    rise = wanted[i].unit.value(model, trace) - wanted[i].unit.value(model, plain)
                    out[i] = _numbers(rise.double(), fits)
        return np.asarray(out / np.array([w.spread for w in wanted])[:, None])


def inserted(batch: Batch, strings: Int[np.ndarray, "rows length"]) -> tuple[Batch, Bool[Tensor, " rows"]]:
    """Rows with a string in place of their last tokens, and which rows keep a scored token before it.

    Rows that are too short are left as they are.
    """
    assert batch.mask is not None and batch.scored is not None  # text has positions
    ids = batch.tensors["input_ids"].clone()
    new = torch.from_numpy(np.asarray(strings)).to(ids.device, ids.dtype)
    fits = batch.scored.sum(dim=1) > new.shape[1]
    at = batch.mask.sum(dim=1)[:, None] - new.shape[1] + torch.arange(new.shape[1], device=ids.device)
    rows = torch.arange(len(batch), device=ids.device)[:, None].expand_as(at)
    ids[rows[fits], at[fits]] = new[fits]
    return replace(batch, tensors={**batch.tensors, "input_ids": ids}), fits


def _strings(one: StringActivation, batch: Batch) -> Int[np.ndarray, "rows length"]:
    if one.random is not None:
        return one.random.draw(batch)
    return np.repeat(np.array([one.tokens]), len(batch), axis=0)


def _read(model: Model, batch: Batch, wanted: Sequence[StringActivation]) -> Trace:
    sites = list(dict.fromkeys(w.unit.capture(model) for w in wanted))
    return model.run(batch.to(model.device), sites, stop_early=True)


def _numbers(x: Float[Tensor, " rows"], where: Bool[Tensor, " rows"]) -> Float[np.ndarray, " rows"]:
    return np.where(where.cpu().numpy(), x.detach().cpu().numpy(), np.nan)
