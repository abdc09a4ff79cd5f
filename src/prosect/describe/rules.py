"""Token rules: a small decision tree over readable predicates, with a predicted activation at each leaf."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from prosect.core.canonical import Json
from prosect.core.errors import BadInput
from prosect.core.records import Executable
from prosect.data.batch import Batch
from prosect.describe.contexts import INSIDE, Columns, columns_of
from prosect.describe.executables import parameters_of, reading
from prosect.describe.vocabulary import CLASSES, Vocabulary
from prosect.store.shelf import Shelf

KIND = "token-rule"
VERSION = 1
FURTHEST = 64
DEEPEST = 32


@dataclass(frozen=True)
class Predicate:
    """One readable question about a position.

    Attributes:
        what: ``token`` (is the token ``back`` positions back one of ``tokens``), ``line`` and
            ``previous line`` (is their first visible token one of ``tokens``), ``class`` (is the token
            ``back`` positions back of the class ``name``), ``inside`` (quotes, comment or brackets),
            ``repeated`` (did the token occur earlier in the window), ``position`` (is the position in the
            window below ``below``).
        back: positions back, 0 for the current token.
        tokens: ids, ascending.
        name: a class, or what is open.
        below: positions.

    Raises:
        BadInput: a field is outside its range, or tokens are not distinct and ascending.
    """

    what: str
    back: int = 0
    tokens: tuple[int, ...] = ()
    name: str = ""
    below: int = 0

    def __post_init__(self) -> None:
        about_tokens = self.what in ("token", "line", "previous line")
        known = {"class": CLASSES, "inside": INSIDE}.get(self.what, ())
        wrong = (
            self.what not in ("token", "line", "previous line", "class", "inside", "repeated", "position")
            or not 0 <= self.back <= FURTHEST
            or about_tokens != bool(self.tokens)
            or (bool(known) and self.name not in known)
            or (self.what == "position" and self.below < 1)
            or any(t < 0 for t in self.tokens)
            or list(self.tokens) != sorted(set(self.tokens))
        )
        if wrong:
            raise BadInput(f"the predicate {self.json}", "a question that Predicate lists")

    @property
    def needs_text(self) -> bool:
        """Whether it asks about the text of tokens rather than their ids."""
        return self.what in ("line", "previous line", "class", "inside")

    @property
    def json(self) -> Json:
        """As stored: fields that say nothing are left out."""
        out: dict[str, Json] = {"what": self.what}
        if self.what in ("token", "class"):
            out["back"] = self.back
        if self.tokens:
            out["tokens"] = list(self.tokens)
        if self.name:
            out["name"] = self.name
        if self.below:
            out["below"] = self.below
        return out

    def holds(self, columns: Columns) -> Bool[np.ndarray, " n"]:
        """The answer at every real position."""
        match self.what:
            case "token":
                return _member(columns.token(self.back), self.tokens)
            case "line":
                return _member(columns.scan.line, self.tokens)
            case "previous line":
                return _member(columns.scan.previous, self.tokens)
            case "class":
                of_token = columns.words.classes[:, list(CLASSES).index(self.name)]
                return np.asarray(np.append(of_token, False)[columns.token(self.back)])
            case "inside":
                return np.asarray(getattr(columns.scan, self.name))
            case "repeated":
                return columns.repeated
            case _:
                return columns.position < self.below


def _member(tokens: np.ndarray, wanted: tuple[int, ...]) -> Bool[np.ndarray, " n"]:
    top = max(int(tokens.max(initial=0)), wanted[-1]) + 1
    table = np.zeros(top + 1, dtype=bool)  # one more place, for -1
    table[list(wanted)] = True
    return np.asarray(table[tokens])


@dataclass(frozen=True)
class Leaf:
    """Where every question has been answered: the activation predicted there."""

    value: float

    @property
    def json(self) -> Json:
        """As stored."""
        return {"value": self.value}


@dataclass(frozen=True)
class Branch:
    """A question, and what follows if it holds and if it does not."""

    predicate: Predicate
    then: Branch | Leaf
    otherwise: Branch | Leaf

    @property
    def json(self) -> Json:
        """As stored."""
        return {"if": self.predicate.json, "then": self.then.json, "else": self.otherwise.json}


Tree = Branch | Leaf


def tree_of(stored: Json, depth: int = 0) -> Tree:
    """The tree that its ``json`` says.

    Raises:
        BadInput: it is malformed, or deeper than any rule.
    """
    with reading(KIND):
        if depth > DEEPEST:
            raise BadInput(f"a rule more than {DEEPEST} questions deep", "a short rule")
        if "value" in stored:
            value = float(stored["value"])
            if not np.isfinite(value):
                raise BadInput(f"a predicted activation of {value}", "a finite number")
            return Leaf(value)
        asked = dict(stored["if"])
        asked["tokens"] = tuple(asked.get("tokens", ()))
        return Branch(
            Predicate(**asked), tree_of(stored["then"], depth + 1), tree_of(stored["else"], depth + 1)
        )


def predicates(tree: Tree) -> list[Predicate]:
    """Every question of a tree, from its root down."""
    if isinstance(tree, Leaf):
        return []
    return [tree.predicate, *predicates(tree.then), *predicates(tree.otherwise)]


class TokenRule:
    """The activation that a decision tree over tokens and their context predicts.

    Args:
        tree: questions and values.
        vocabulary: strings of the tokens, needed where a question is about text.

    Raises:
        BadInput: a question is about text and there is no vocabulary.
    """

    def __init__(self, tree: Tree, vocabulary: Vocabulary | None = None) -> None:
        if vocabulary is None and any(p.needs_text for p in predicates(tree)):
            raise BadInput("a rule about the text of tokens without a vocabulary", "the vocabulary's digest")
        self.tree, self.vocabulary = tree, vocabulary

    @classmethod
    def of(cls, executable: Executable, shelf: Shelf) -> TokenRule:
        """The rule that an executable stores.

        Raises:
            BadInput: it is of another kind, or malformed.
            NewerSchema: a later prosect wrote it.
        """
        parameters = parameters_of(executable, KIND, VERSION)
        with reading(KIND):
            tree = tree_of(parameters["tree"])
        digest = executable.tensors.get("vocabulary")
        return cls(tree, Vocabulary.load(digest, shelf) if digest else None)

    def executable(self, shelf: Shelf) -> Executable:
        """As stored: the tree, and the vocabulary's digest where the rule needs it."""
        needs = self.vocabulary is not None and any(p.needs_text for p in predicates(self.tree))
        tensors = {"vocabulary": self.vocabulary.store(shelf)} if needs and self.vocabulary else {}
        return Executable(kind=KIND, version=VERSION, parameters={"tree": self.tree.json}, tensors=tensors)

    def activation(self, batch: Batch) -> Float[np.ndarray, " n"]:
        """The predicted activation at scored positions, in the order of ``batch.flat``.

        Raises:
            BadInput: the batch holds no tokens, or tokens of another vocabulary.
        """
        columns = columns_of(batch, self.vocabulary)
        out = np.empty(len(columns))
        pending: list[tuple[Tree, np.ndarray]] = [(self.tree, np.arange(len(columns)))]
        while pending:
            tree, at = pending.pop()
            if isinstance(tree, Leaf):
                out[at] = tree.value
            elif len(at):
                holds = tree.predicate.holds(columns)[at]
                pending += [(tree.then, at[holds]), (tree.otherwise, at[~holds])]
        return out
