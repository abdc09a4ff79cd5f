"""Texts: the embedded corpus, and the user's own files, with the document as the unit.

The embedded corpus is the Python standard library's source on the user's own machine: real text that is
always there. Site-packages, tests, files written when Python was built, and files that are not UTF-8 are
left out, and counted.
"""

from __future__ import annotations

import json
import os
import sysconfig
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from prosect.core.canonical import digest
from prosect.core.errors import BadInput, TooLittleData

LEFT_OUT = frozenset(
    {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__", "lib-dynload"}
)
LARGEST = 8_000_000
"""Bytes: a larger file is data rather than a document, and is left out."""


@dataclass(frozen=True)
class Document:
    """One text.

    Attributes:
        name: path within its corpus, with forward slashes.
        text: all of it.
    """

    name: str
    text: str

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the text."""
        return digest(self.text.encode())


@dataclass(frozen=True)
class Corpus:
    """Documents in the order of their names.

    Attributes:
        name: what to call it.
        documents: the texts.
        skipped: how many files were left out, by reason.
    """

    name: str
    documents: tuple[Document, ...]
    skipped: tuple[tuple[str, int], ...] = ()

    @cached_property
    def digest(self) -> str:
        """Of every name and text."""
        return digest([[d.name, d.digest] for d in self.documents])

    def __len__(self) -> int:
        return len(self.documents)


def standard_library(root: Path | None = None) -> Corpus:
    """The Python standard library's own source.

    Args:
        root: where it is; by default the running interpreter's.

    Raises:
        TooLittleData: this Python carries no source.
    """
    root = root or Path(sysconfig.get_paths()["stdlib"])
    documents, skipped = _read(root, _sources(root))
    if len(documents) < 50:
        raise TooLittleData(
            f"{len(documents)} source files of the standard library",
            "a Python that carries its source",
            "--text with a folder of texts",
        )
    return Corpus("python-standard-library", documents, skipped)


def _sources(root: Path) -> Iterator[Path]:
    """Python files, without walking what is left out, which is most of what lies there."""
    for folder, inner, names in os.walk(root):
        inner[:] = [name for name in inner if name not in LEFT_OUT]
        yield from (
            Path(folder, n) for n in names if n.endswith(".py") and not n.startswith("_sysconfigdata")
        )


def text_files(path: Path) -> Corpus:
    """The user's own texts: a folder of UTF-8 files, or JSON lines with a ``text`` (and maybe ``name``) each.

    Hidden files, files that are not UTF-8 and files larger than 8 MB are left out and counted.

    Raises:
        BadInput: the path does not exist, or a JSON line has no text.
        TooLittleData: there is nothing to read, or one file that is a single document.
    """
    path = Path(path)
    if not path.exists():
        raise BadInput(f"{path}, which does not exist", "a folder of texts or a .jsonl file")
    if path.is_file():
        if path.suffix != ".jsonl":
            raise TooLittleData(
                f"one file, {path.name}",
                "many documents, since the document is what is counted and resampled",
                "a folder with a file for each document, or a .jsonl file with a text in each line",
            )
        documents = tuple(_lines(path))
        if not documents:
            raise TooLittleData(f"{path}, which is empty", "documents")
        return Corpus(path.stem, documents)
    files = [
        p
        for p in sorted(path.rglob("*"))
        if p.is_file() and not any(part.startswith(".") for part in p.relative_to(path).parts)
    ]
    documents, skipped = _read(path, files)
    if not documents:
        raise TooLittleData(f"no readable text in {path}", "UTF-8 files")
    return Corpus(path.resolve().name, documents, skipped)


def _read(root: Path, paths: Iterable[Path]) -> tuple[tuple[Document, ...], tuple[tuple[str, int], ...]]:
    documents: list[Document] = []
    counts = {"not UTF-8": 0, "empty": 0, "larger than 8 MB": 0, "unreadable": 0}
    for path in paths:
        try:
            if path.stat().st_size > LARGEST:
                counts["larger than 8 MB"] += 1
                continue
            text = path.read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            counts["not UTF-8"] += 1
            continue
        except OSError:
            counts["unreadable"] += 1
            continue
        if not text.strip() or "\x00" in text:
            counts["empty" if not text.strip() else "not UTF-8"] += 1
            continue
        documents.append(Document(path.relative_to(root).as_posix(), text.replace("\r\n", "\n")))
    documents.sort(key=lambda d: d.name)
    return tuple(documents), tuple((k, n) for k, n in counts.items() if n)


def _lines(path: Path) -> Iterator[Document]:
    with path.open(encoding="utf-8") as file:
        for n, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                content = json.loads(line)
                text = content["text"]
            except (ValueError, KeyError, TypeError):
                text = None
            if not isinstance(text, str):
                raise BadInput(f"line {n} of {path.name}", 'JSON with a "text"')
            if text.strip():
                yield Document(str(content.get("name") or f"line {n}"), text)


def select(corpus: Corpus, most: int, keep: Sequence[str] = ()) -> Corpus:
    """At most ``most`` documents, chosen by the hash of their content, so that the choice never depends on a seed.

    Args:
        corpus: where from.
        most: how many at the most.
        keep: names that are kept before any other.
    """
    if len(corpus) <= most:
        return corpus
    wanted = set(keep)
    ordered = sorted(corpus.documents, key=lambda d: (d.name not in wanted, d.digest, d.name))[:most]
    return Corpus(corpus.name, tuple(sorted(ordered, key=lambda d: d.name)), corpus.skipped)
