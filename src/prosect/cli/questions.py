"""Verbs that ask one question of a model: each says what is its own, and `question` adds what all have."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from prosect.cli.options import AsJson, Device, DryRun, Limit, Quiet, Seed, Target, Text, path

Asks = Callable[..., dict[str, Any]]
QUESTIONS: dict[str, Callable[..., None]] = {}
"""Verb to command, in the order in which they are listed."""


def question(asks: Asks) -> Asks:
    """Make a verb of a function from its own options to changes of the spec; its name is the verb."""
    verb = asks.__name__

    def ask(**given: Any) -> None:
        from prosect.cli.run import command

        shared = {name: given.pop(name) for name in SHARED}
        changes = asks(**given) | {name: shared[name] for name in ("seed", "device", "limit")}
        rest = {name: shared[name] for name in ("out", "dry_run", "as_json", "quiet")}
        command(shared["target"], changes, **rest, verb=verb)

    own = inspect.signature(asks, eval_str=True).parameters.values()
    needed = [p for p in own if p.default is p.empty]
    others = [p for p in own if p.default is not p.empty]
    target, *shared = SHARED.values()
    by_name = inspect.Parameter.KEYWORD_ONLY
    every = [p.replace(kind=by_name) for p in (target, *needed, *others, *shared)]
    ask.__name__, ask.__doc__ = verb, asks.__doc__
    ask.__signature__ = inspect.Signature(every)  # type: ignore[attr-defined]
    QUESTIONS[verb] = ask
    return asks


def _shared(
    target: Target,
    out: Annotated[Path | None, typer.Option(help="run folder; by default runs/VERB-NAME")] = None,
    seed: Seed = None,
    device: Device = None,
    limit: Limit = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """What every question takes."""


SHARED = dict(inspect.signature(_shared, eval_str=True).parameters)


@question
def patch(
    pairs: Annotated[
        Path | None,
        typer.Option(
            help="JSON lines of clean, counterfactual, answer, wrong; else random blocks that are copied"
        ),
    ] = None,
    site: Annotated[
        list[str] | None, typer.Option(help="a site, a head, or a kind for every layer; may be given again")
    ] = None,
    heads: Annotated[bool, typer.Option("--heads", help="patch head by head")] = False,
    denoise: Annotated[
        bool, typer.Option("--denoise", help="put the clean run's values into the counterfactual run")
    ] = False,
) -> dict[str, Any]:
    """Find the places of TARGET that carry what an answer depends on, and test them on pairs not yet seen."""
    return {
        "patch.pairs": path(pairs),
        "patch.sites": site or (["z"] if heads else None),
        "patch.each": "head" if heads else None,
        "patch.way": "denoising" if denoise else None,
    }


@question
def lens(
    text: Text = None,
    steps: Annotated[int | None, typer.Option(help="batches that the tuned lens is trained on")] = None,
) -> dict[str, Any]:
    """Read what each layer of TARGET already says, with a logit lens and a trained one, and test it on unseen text."""
    return {
        "data.text": path(text),
        "lens.steps": steps,
    }


@question
def flow(
    text: Text = None,
    rows: Annotated[int | None, typer.Option(help="windows that every head is looked at on")] = None,
) -> dict[str, Any]:
    """Compare where TARGET's heads look, what they move from there and what depends on it; test it on unseen text."""
    return {
        "data.text": path(text),
        "flow.rows": rows,
    }


@question
def steer(
    token: Annotated[str, typer.Option(help="the token to steer toward, a single one")],
    site: Annotated[str | None, typer.Option(help="where; by default the middle of the network")] = None,
    strength: Annotated[
        list[float] | None, typer.Option(help="a dose, as a factor on the direction; may be given again")
    ] = None,
    vector: Annotated[
        str | None, typer.Option(help="means (of the stream before the token), probe or latent")
    ] = None,
    dictionary: Annotated[Path | None, typer.Option(help="the file of the latent's dictionary")] = None,
    latent: Annotated[int | None, typer.Option(help="number of the latent in it")] = None,
    text: Text = None,
) -> dict[str, Any]:
    """Add a token's direction to TARGET in growing doses, beside random directions, and test every dose."""
    return {
        "data.text": path(text),
        "steer.token": token,
        "steer.site": site,
        "steer.strengths": strength or None,
        "steer.vector": vector or ("latent" if dictionary is not None else None),
        "steer.dictionary": path(dictionary),
        "steer.latent": latent,
    }


@question
def synthesise(
    site: Annotated[
        str | None, typer.Option(help="where the units are; by default mlp_act in the middle of the network")
    ] = None,
    index: Annotated[
        list[int] | None, typer.Option(help="a unit; may be given again; by default some drawn at random")
    ] = None,
    length: Annotated[int | None, typer.Option(help="tokens in a string")] = None,
    seeds: Annotated[int | None, typer.Option(help="searches for each unit")] = None,
    text: Text = None,
) -> dict[str, Any]:
    """Search for strings that activate units of TARGET, and test on unseen text whether they do so there."""
    return {
        "data.text": path(text),
        "synthesise.site": site,
        "synthesise.indices": index or None,
        "synthesise.length": length,
        "synthesise.seeds": seeds,
    }


@question
def probe(
    concept: Annotated[
        str | None,
        typer.Option(
            help="inside quotes, inside comment, inside brackets, repeated, class NAME, or next TOKEN"
        ),
    ] = None,
    site: Annotated[
        list[str] | None, typer.Option(help="a site, a head, or a kind for every layer; may be given again")
    ] = None,
    text: Text = None,
) -> dict[str, Any]:
    """Read a concept off TARGET with linear probes, at each site and at all together, and test it on unseen text."""
    return {
        "data.text": path(text),
        "probe.concept": concept,
        "probe.sites": site or None,
    }


@question
def attribute(
    method: Annotated[
        list[str] | None,
        typer.Option(help="saliency, integrated-gradients, occlusion ...; may be given again"),
    ] = None,
    text: Text = None,
    tokens: Annotated[int | None, typer.Option(help="most tokens of a window that are attributed")] = None,
) -> dict[str, Any]:
    """Map which inputs an answer of TARGET depends on, and test whether replacing them says the same."""
    return {
        "data.text": path(text),
        "attribute.methods": method or None,
        "attribute.tokens": tokens,
    }
