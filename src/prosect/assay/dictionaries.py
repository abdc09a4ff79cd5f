"""Dictionaries that a user names, and what their files say of the model and the text behind them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prosect.core.canonical import Json, digest
from prosect.core.errors import BadInput, ShapeMismatch, Unsupported
from prosect.decompose.dictionary import Dictionary
from prosect.decompose.fit_record import RECORD, read_record
from prosect.decompose.formats.imported import weights_of
from prosect.decompose.formats.registry import FILES
from prosect.decompose.keep import load_decomposition
from prosect.decompose.pretrained import import_dictionary
from prosect.model import Model
from prosect.store.tensors import load_tensors


@dataclass(frozen=True)
class Named:
    """A dictionary and where it comes from.

    Attributes:
        dictionary: the dictionary.
        name: of its file or folder, without the path.
        target: what opens its model, as its files say; empty if they do not.
        changes: of the spec under which it was fitted.
        model: digest of its model, if that is known.
        data: digest of the text that it was fitted on, likewise.
        part: of that text.
        training: ``tokens`` and such, as the record says.
        folded: what was folded into its numbers when it was read.
    """

    dictionary: Dictionary
    name: str
    target: str = ""
    changes: Mapping[str, Json] = field(default_factory=dict)
    model: str | None = None
    data: str | None = None
    part: str = ""
    training: Mapping[str, Json] = field(default_factory=dict)
    folded: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Of the dictionary's numbers and settings."""
        from prosect.core.canonical import digest_tensors

        tensors, about = self.dictionary.state()
        return digest({"tensors": digest_tensors(tensors), "given": about["given"]})


def named(where: str, options: Mapping[str, Any] | None = None) -> list[Named]:
    """The dictionaries at a place: a folder that `prosect fit` made, one of its files, or any other format.

    Args:
        where: a path, or a hub id.
        options: of `load_dictionary`, such as ``format`` and ``sites``.

    Raises:
        BadInput: there is none, or the fit did not end.
        ProsectError: whatever reading it refuses.
    """
    path, more = Path(where).expanduser(), dict(options or {})
    folder = path if path.is_dir() else path.parent
    if (folder / RECORD).is_file() and not any((folder / f).is_file() for f in FILES):
        return _fitted(folder, None if path.is_dir() else path.name)
    if path.is_file() and path.suffix == ".safetensors" and path.name not in FILES:
        found = load_decomposition(path)
        if not isinstance(found, Dictionary):
            raise BadInput(f"{path}, a decomposition of kind {found.kind}", "a dictionary")
        return [Named(found, path.name, model=load_tensors(path)[1]["model"])]
    imported = import_dictionary(where, more.pop("format", None), **more)
    said = imported.metadata
    training = {"tokens": said["training_tokens"]} if said.get("training_tokens") else {}
    target = str(said.get("model_name") or "")
    return [Named(imported.dictionary, path.name, target, training=training, folded=imported.folded)]


def _fitted(folder: Path, file: str | None) -> list[Named]:
    record = read_record(folder)
    if not record["complete"]:
        raise BadInput(f"{folder}, a fit that has not ended", "a finished one", "the same prosect fit again")
    asked, about = record["asked"], record.get("about") or {}
    files = [e["file"] for e in record["dictionaries"]]
    if file is not None and file not in files:
        raise BadInput(f"{file}, which is not of the fit in {folder}", f"one of {', '.join(files)}")
    training = {"tokens": asked["tokens"], "positions": record["data"]["positions"]}
    if len(files) == 1:
        training["seconds training"] = record["speed"]["seconds training"]
    out = []
    for name in files if file is None else [file]:
        found = load_decomposition(folder / name, asked["model"])
        assert isinstance(found, Dictionary)  # the fit wrote it
        target, changes = about.get("target", ""), about.get("changes", {})
        out.append(
            Named(found, name, target, changes, asked["model"], asked["data"], asked["part"], training)
        )
    return out


@dataclass(frozen=True)
class Sorted:
    """Which of several dictionaries is audited, and what the others are to it.

    Attributes:
        own: the first.
        seeds: that differ from it in nothing but their seeds.
        compared: that read and write the same sites, otherwise.
    """

    own: Named
    seeds: tuple[Named, ...]
    compared: tuple[Named, ...]


def sort(found: Sequence[Named]) -> Sorted:
    """The first is audited; the others stand beside it.

    Raises:
        ShapeMismatch: one of them reads or writes other sites.
    """
    own, *rest = found
    seeds: list[Named] = []
    compared: list[Named] = []
    for other in rest:
        a, b = own.dictionary, other.dictionary
        if (a.reads, a.writes) != (b.reads, b.writes):
            raise ShapeMismatch(
                f"{other.name}, which reads {', '.join(b.reads)} and writes {', '.join(b.writes)}",
                f"one of the places of {own.name}",
                "naming one dictionary, and a later one with --next",
            )
        (seeds if _alike(a) == _alike(b) else compared).append(other)
    return Sorted(own, tuple(seeds), tuple(compared))


def _alike(dictionary: Dictionary) -> Json:
    """What two dictionaries must share to differ in their seeds only."""
    return {k: v for k, v in dictionary.asked().items() if k not in ("seed", "device")}


def on(model: Model, found: Named) -> Named:
    """The dictionary with its sites under the model's own names.

    Raises:
        ShapeMismatch: it was fitted on other weights, or is as wide as no such site.
        UnknownName: the model has no such site.
    """
    if found.model is not None and found.model != model.digest:
        raise ShapeMismatch(
            f"{found.name}, fitted on model {found.model[:16]}",
            f"{model.name}, which is {model.digest[:16]}",
            "--model with the one that it was fitted on",
        )
    given = found.dictionary
    names = {site: model.sites.resolve(site) for site in (*given.reads, *given.writes)}
    for site, own in names.items():
        info = model.sites.info(own)
        width = None if info.width is None else info.width * (info.heads or 1)
        if width is not None and width != given.widths_[site]:
            raise ShapeMismatch(
                f"{found.name}, made for {given.widths_[site]} numbers at {site}",
                f"{width}, as {model.name} has there",
                "another --model",
            )
    if all(site == own for site, own in names.items()):
        return found
    if given.cross_layer:
        raise Unsupported(
            f"other names for the sites of {given.name}", "a cross-layer transcoder with names of ours"
        )
    reads, writes = tuple(names[s] for s in given.reads), tuple(names[s] for s in given.writes)
    made = replace(given, sites=reads, targets=writes)
    widths = {names[site]: width for site, width in given.widths_.items()}
    return replace(found, dictionary=made.with_weights(weights_of(given), widths, given.history_))
