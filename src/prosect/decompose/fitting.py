"""From a model and its data to trained dictionaries in a folder, with a record of what they were fitted on.

The folder holds ``fit.json``, a safetensors file for each dictionary, and, until all are done, ``work``:
activations and checkpoints. Killed at any moment and started again, it goes on and the dictionaries end with
the same bits.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from prosect.core.canonical import Json, digest, plain
from prosect.core.errors import BadInput, Conflict, TooLittleData, Unsupported
from prosect.core.progress import say
from prosect.core.provenance import environment
from prosect.core.schema import SCHEMA
from prosect.core.seeds import Seed
from prosect.data.source import Source
from prosect.decompose.activations import Runs, check_sites, harvest, read
from prosect.decompose.base import SEED
from prosect.decompose.contract import ActivationStream
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.fit_record import RECORD, check_place, found_record, read_record
from prosect.decompose.keep import load_decomposition, save_decomposition
from prosect.decompose.live import BUFFER, LiveStream, Shuffles
from prosect.decompose.quality import measure
from prosect.decompose.ranks.dealt import ALONE, Ranks
from prosect.decompose.streams import first, limited
from prosect.decompose.together import batch_rows, rounds, train_together
from prosect.store.atomic import disk_errors, write_json
from prosect.store.lock import locked

WORK = "work"
MEASURED = 2**15
"""Positions that the figures in the record are measured on, at most."""


STORED = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Harvesting:
    """How activations come to be.

    Attributes:
        live: run the model while training, with nothing on disk, rather than harvest first.
        dtype: what activations are kept as: float32, float16 or bfloat16; empty for the model's own.
        rows: rows of a batch of the model.
        buffer: positions mixed at a time where it is live.
        folder: where harvested activations are kept for other fits, all that the part has; None for within
            the fit's folder, until it is done, and no more than are trained on.

    Raises:
        BadInput: a dtype that is none of these.
    """

    live: bool = False
    dtype: str = ""
    rows: int = 32
    buffer: int = BUFFER
    folder: Path | None = None

    def __post_init__(self) -> None:
        if self.dtype and self.dtype not in STORED:
            raise BadInput(f"activations kept as {self.dtype!r}", ", ".join(STORED))

    @property
    def stored(self) -> torch.dtype | None:
        """`dtype` as torch's."""
        return STORED[self.dtype] if self.dtype else None


@dataclass(frozen=True)
class Fitted:
    """A finished fit.

    Attributes:
        folder: where it is.
        dictionaries: by name.
        record: what ``fit.json`` holds.
        fresh: whether anything was done; False where all was there already.
    """

    folder: Path
    dictionaries: dict[str, Dictionary]
    record: Json
    fresh: bool


def fit_dictionaries(
    model: Runs,
    source: Source,
    dictionaries: Mapping[str, Dictionary],
    out: Path,
    tokens: int,
    part: str = "explore",
    harvesting: Harvesting | None = None,
    seed: Seed = SEED,
    every: int = 500,
    memory: int | None = None,
    about: Json = None,
    ranks: Ranks = ALONE,
) -> Fitted:
    """Train dictionaries on a model's activations and keep them, every batch going to all of them.

    Activations at all their sites are read in one pass of the model, documents in an order drawn from the
    seed. They are harvested to disk and gone through as often as ``tokens`` needs, or made while training.
    More dictionaries than ``memory`` allows are trained in several rounds; a dictionary's bits do not depend
    on who is beside it. Those that are trained end to end (`Recipe`) take the model's passes one by one.

    Of several processes the first harvests, measures and writes, into a folder that all of them see; positions
    are dealt to all while training. Live activations are made by each process for itself.

    Args:
        model: what is run; see `harvest`.
        source: where batches come from.
        dictionaries: not fitted yet, by name: the names of their files.
        out: the folder.
        tokens: positions that each is trained on, repeats included.
        part: of the source; what learns may see ``explore`` only.
        harvesting: how activations come to be.
        seed: of the order of documents and positions. Dictionaries bring seeds of their own.
        every: training steps between checkpoints.
        memory: bytes for what is trained at once; None for half of what the machine or device has.
        about: how model and data are opened again, kept in the record; nothing depends on it.
        ranks: several processes that call this alike, `prosect.decompose.ranks.dealt.Positions`.

    Raises:
        Conflict: ``out`` holds another fit (what differs is named), one begun elsewhere, or other files.
        TooLittleData: the part is empty, or ``tokens`` is less than a batch.
        NotFinite: an activation is NaN or infinite (site and batch are named), or a training diverged.
        BadInput: a dictionary exceeds the memory, or activations the disk.
        Unsupported: end-to-end training without ``live``, or by several processes.
        RankLost: another process stopped.
    """
    how = harvesting or Harvesting()
    names = [name for name in dictionaries if not name or "/" in name or "\\" in name or name[0] == "."]
    if not dictionaries or names:
        raise BadInput(
            f"dictionaries named {names}" if names else "no dictionaries", "at least one, names of files"
        )
    out = Path(out)
    asked: Json = plain(
        {
            "model": model.digest,
            "data": source.digest,
            "part": part,
            "tokens": tokens,
            "seed": seed,
            "activations": {"live": how.live, "dtype": how.dtype, "rows": how.rows}
            | ({"buffer": how.buffer} if how.live else {}),
            "dictionaries": {name: d.asked() for name, d in dictionaries.items()},
        }
    )
    ranks.agree("fit", asked)
    with locked(out) if ranks.first else nullcontext():
        ranks.wait()  # the folder is there, and is ours
        found = found_record(out, asked)
        complete = (
            found is not None and found["complete"] and all(_file(out, n).exists() for n in dictionaries)
        )
        if found is not None and complete:
            say(f"already done: {out}")
            return Fitted(out, _loaded(out, dictionaries, model.digest), found, fresh=False)
        header = {
            "schema": SCHEMA,
            "asked": asked,
            "provenance": environment(_device(dictionaries))
            | ({"ranks": ranks.size} if ranks.size > 1 else {}),
            "about": plain(about),
            "complete": False,
        }
        if found is not None:
            if ranks.first:
                check_place(out, found, header)
            say(f"resuming {out}")
        fit = _Fit(model, source, dictionaries, out, tokens, part, how, seed, memory, ranks)
        ranks.wait()  # all have read the record, or seen that there is none
        if found is None and ranks.first:
            write_json(out / RECORD, header)
        return fit.go(header, every)


class _Fit:
    """One under way; nothing is written before all that can be refused was refused."""

    def __init__(
        self,
        model: Runs,
        source: Source,
        dictionaries: Mapping[str, Dictionary],
        out: Path,
        tokens: int,
        part: str,
        how: Harvesting,
        seed: Seed,
        memory: int | None,
        ranks: Ranks,
    ) -> None:
        self.ranks = ranks
        self.model, self.part, self.out, self.how, self.seed = model, part, out, how, seed
        self.dictionaries, self.tokens = dictionaries, tokens
        self.sites = tuple(
            dict.fromkeys(site for d in dictionaries.values() for site in (*d.reads, *d.writes))
        )
        check_sites(self.sites)
        through = [n for n, d in dictionaries.items() if d.recipe.end_to_end]
        if through and (ranks.size > 1 or not how.live):
            raise Unsupported(
                f"{through[0]} end to end"
                + (f" by {ranks.size} processes" if how.live else " on activations that lie on disk"),
                "one process that runs the model while it trains",
                "--live",
            )
        rows = batch_rows(dictionaries.values())
        if tokens < rows:
            raise TooLittleData(
                f"{tokens:,} tokens to train on",
                f"at least one batch of {rows:,}",
                "more, or smaller batches",
            )
        self.source = source
        if not how.live and isinstance(source, Shuffles):
            self.source = source.shuffled(part, seed.child("documents"))
        batch = next(iter(self.source.batches(part, how.rows)), None)
        if batch is None:
            raise TooLittleData(f"no documents in {part}", "at least one")
        sample = read(model, batch, self.sites, f"batch 0 of {part}", how.stored)
        self.widths = {site: x.shape[1] for site, x in sample.items()}
        self.bytes_each = sum(x.shape[1] * x.element_size() for x in sample.values())
        self.where = {x.device.type for x in sample.values()}
        memory = _memory(_device(dictionaries)) if memory is None else memory
        self.rounds = rounds(dictionaries, self.widths, memory)

    def go(self, header: dict[str, Json], every: int) -> Fitted:
        """Harvest, train, measure, write the record."""
        began = time.monotonic()
        stream = self._stream()
        harvested, passed = time.monotonic(), 0
        for dealt in self.rounds:
            missing = {n: d for n, d in dealt.items() if not _file(self.out, n).exists()}
            if not missing:
                continue
            if len(self.rounds) > 1:
                say(f"training {len(missing)} of {len(self.dictionaries)} dictionaries")
            passed += self._train(missing, stream, every)
            for name, dictionary in missing.items():
                if self.ranks.first:
                    save_decomposition(_file(self.out, name), dictionary, self.model.digest)
        trained = time.monotonic()
        self.ranks.wait()
        made = _loaded(self.out, self.dictionaries, self.model.digest)
        if not self.ranks.first:
            self.ranks.wait()
            return Fitted(self.out, made, read_record(self.out), fresh=True)
        record = header | {"complete": True, "dictionaries": self._figures(made, stream)}
        record["data"] = {"positions": len(stream), "stream": stream.digest}
        record["speed"] = {
            "seconds harvesting": round(harvested - began, 3),
            "seconds training": round(trained - harvested, 3),
            "tokens per second": round(passed / max(trained - began, 1e-9), 1),
        }
        write_json(self.out / RECORD, record)
        self.ranks.wait()
        shutil.rmtree(self.out / WORK, ignore_errors=True)
        return Fitted(self.out, made, plain(record), fresh=True)

    def _train(self, dictionaries: Mapping[str, Dictionary], stream: ActivationStream, every: int) -> int:
        """Train one round; gives how many positions were gone through."""
        work = self.out / WORK / "training"
        (name, dictionary), *others = dictionaries.items()
        if others or not dictionary.recipe.end_to_end:
            return train_together(dictionaries, stream, work, every, self.ranks)
        dictionary.fit(stream, work / name, every)
        return len(stream)

    def _stream(self) -> ActivationStream:
        how = self.how
        if how.live:
            return LiveStream(
                self.model,
                self.source,
                self.part,
                self.sites,
                self.tokens,
                self.seed,
                how.rows,
                how.buffer,
                how.stored,
                ahead=self._elsewhere(),
            )
        folder = self.out / WORK / "activations" if how.folder is None else Path(how.folder)
        if not folder.exists() and self.ranks.first:
            self._check_room(folder)
        if not self.ranks.first:
            self.ranks.wait()  # until the first has harvested; then all is there
        kept = harvest(
            self.model,
            self.source,
            self.part,
            self.sites,
            folder,
            rows=how.rows,
            limit=self.tokens if how.folder is None else None,
            dtype=how.stored,
        )
        if self.ranks.first:
            self.ranks.wait()
        epochs = math.ceil(self.tokens / len(kept))
        if epochs > 1:
            say(
                f"{len(kept):,} positions in {self.part}: each is used about {self.tokens / len(kept):.1f} times"
            )
        return limited(kept.shuffled(self.seed.child("positions"), epochs), self.tokens)

    def _elsewhere(self) -> bool:
        """Whether the model or the training is on a device of its own, so that both can work at once."""
        return {torch.device(_device(self.dictionaries)).type, *self.where} != {"cpu"}

    def _check_room(self, folder: Path) -> None:
        """Refuse what the disk cannot hold before anything is run."""
        there = sum(batch.count for batch in self.source.batches(self.part, self.how.rows))
        needed = (there if self.how.folder else min(there, self.tokens)) * self.bytes_each
        place = next(p for p in (folder, *folder.parents) if p.exists())
        with disk_errors(folder):
            free = shutil.disk_usage(place).free
        if needed > free:
            raise BadInput(
                f"{needed / 2**30:,.2f} GiB of activations for {free / 2**30:,.2f} GiB of free disk",
                "room for them",
                "--live, which keeps none, --store float16, or fewer tokens",
            )
        say(f"keeping {needed / 2**20:,.1f} MiB of activations in {folder}")

    def _figures(self, made: Mapping[str, Dictionary], stream: ActivationStream) -> list[Json]:
        sample = first(stream, MEASURED)
        rows: list[Json] = []
        for name, dictionary in made.items():
            quality = measure(dictionary, sample)
            rows.append(
                {
                    "name": name,
                    "file": _file(self.out, name).name,
                    "sha256": digest(_file(self.out, name).read_bytes()),
                    "L0": quality.l0,
                    "FVU": dict(quality.fvu),
                    "dead": quality.dead,
                    "products": dictionary.facts_["products"],
                    "measured on": f"{quality.positions:,} positions that it was trained on",
                }
            )
        return rows


def _file(out: Path, name: str) -> Path:
    return out / f"{name}.safetensors"


def _loaded(out: Path, dictionaries: Mapping[str, Dictionary], model: str) -> dict[str, Dictionary]:
    made = {}
    for name, dictionary in dictionaries.items():
        found = load_decomposition(_file(out, name), model)
        if not isinstance(found, Dictionary) or found.asked() != dictionary.asked():
            raise Conflict(f"{_file(out, name)}, another dictionary", f"{dictionary.name} as it is asked for")
        made[name] = found
    return made


def _device(dictionaries: Mapping[str, Dictionary]) -> str:
    return next(iter(dictionaries.values())).device


def _memory(device: str) -> int:
    """Half of what the device has."""
    if torch.device(device).type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory // 2)
    import os

    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (AttributeError, ValueError, OSError):  # Windows does not say
        return 4 * 2**30
