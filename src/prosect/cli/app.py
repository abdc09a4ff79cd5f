"""The application and its verbs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    name="prosect",
    help="Takes a trained neural network apart and proves, or fails to prove, what its parts do.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Target = Annotated[
    str, typer.Argument(help="a preset, a spec file, organism:NAME, a local Hugging Face folder or a hub id")
]
Seed = Annotated[int | None, typer.Option(help="root of every random choice")]
Text = Annotated[Path | None, typer.Option(help="folder or .jsonl of texts; else Python's standard library")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, mps or auto")]
Limit = Annotated[
    int | None, typer.Option(help="most documents or inputs in each part; the run is marked as partial")
]
Remote = Annotated[bool, typer.Option("--trust-remote-code", help="let the model's own code run")]
Pickle = Annotated[bool, typer.Option("--allow-pickle", help="load weights from pickles")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]


def version(show: bool) -> bool:
    """Print the version."""
    if show:
        from prosect import __version__

        typer.echo(f"prosect {__version__}")
        raise typer.Exit
    return show


@app.callback()
def root(
    show_version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Takes a trained neural network apart and proves, or fails to prove, what its parts do."""


@app.command()
def run(
    target: Target,
    text: Text = None,
    out: Annotated[Path | None, typer.Option(help="run folder; by default runs/NAME")] = None,
    seed: Seed = None,
    device: Device = None,
    limit: Limit = None,
    trust_remote_code: Remote = False,
    allow_pickle: Pickle = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="print sites, tokens, FLOPs, bytes and time; do nothing")
    ] = False,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="show no progress")] = False,
) -> None:
    """Run the whole loop on TARGET and write a report; the same command resumes or finds a finished run."""
    from prosect.cli.run import command

    command(
        target,
        {
            "data.text": None if text is None else str(text),
            "seed": seed,
            "device": device,
            "limit": limit,
            "trust_remote_code": trust_remote_code or None,
            "allow_pickle": allow_pickle or None,
        },
        out=out,
        dry_run=dry_run,
        as_json=as_json,
        quiet=quiet,
    )


Out = Annotated[Path | None, typer.Option(help="run folder; by default runs/VERB-NAME")]
Quiet = Annotated[bool, typer.Option("--quiet", help="show no progress")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="print sites, tokens, FLOPs, bytes and time; do nothing")
]


@app.command()
def patch(
    target: Target,
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
    out: Out = None,
    seed: Seed = None,
    device: Device = None,
    limit: Limit = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Find the places of TARGET that carry what an answer depends on, and test them on pairs not yet seen."""
    from prosect.cli.run import command

    command(
        target,
        {
            "patch.pairs": None if pairs is None else str(pairs),
            "patch.sites": site or (["z"] if heads else None),
            "patch.each": "head" if heads else None,
            "patch.way": "denoising" if denoise else None,
            "seed": seed,
            "device": device,
            "limit": limit,
        },
        out=out,
        dry_run=dry_run,
        as_json=as_json,
        quiet=quiet,
        verb="patch",
    )


@app.command()
def lens(
    target: Target,
    text: Text = None,
    steps: Annotated[int | None, typer.Option(help="batches that the tuned lens is trained on")] = None,
    out: Out = None,
    seed: Seed = None,
    device: Device = None,
    limit: Limit = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Read what each layer of TARGET already says, with a logit lens and a trained one, and test it on unseen text."""
    from prosect.cli.run import command

    command(
        target,
        {
            "data.text": None if text is None else str(text),
            "lens.steps": steps,
            "seed": seed,
            "device": device,
            "limit": limit,
        },
        out=out,
        dry_run=dry_run,
        as_json=as_json,
        quiet=quiet,
        verb="lens",
    )


@app.command()
def flow(
    target: Target,
    text: Text = None,
    rows: Annotated[int | None, typer.Option(help="windows that every head is looked at on")] = None,
    out: Out = None,
    seed: Seed = None,
    device: Device = None,
    limit: Limit = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compare where TARGET's heads look, what they move from there and what depends on it; test it on unseen text."""
    from prosect.cli.run import command

    command(
        target,
        {
            "data.text": None if text is None else str(text),
            "flow.rows": rows,
            "seed": seed,
            "device": device,
            "limit": limit,
        },
        out=out,
        dry_run=dry_run,
        as_json=as_json,
        quiet=quiet,
        verb="flow",
    )


@app.command()
def steer(
    target: Target,
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
    out: Out = None,
    seed: Seed = None,
    device: Device = None,
    limit: Limit = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Add a token's direction to TARGET in growing doses, beside random directions, and test every dose."""
    from prosect.cli.run import command

    command(
        target,
        {
            "data.text": None if text is None else str(text),
            "steer.token": token,
            "steer.site": site,
            "steer.strengths": strength or None,
            "steer.vector": vector or ("latent" if dictionary is not None else None),
            "steer.dictionary": None if dictionary is None else str(dictionary),
            "steer.latent": latent,
            "seed": seed,
            "device": device,
            "limit": limit,
        },
        out=out,
        dry_run=dry_run,
        as_json=as_json,
        quiet=quiet,
        verb="steer",
    )


@app.command()
def synthesise(
    target: Target,
    site: Annotated[
        str | None, typer.Option(help="where the units are; by default mlp_act in the middle of the network")
    ] = None,
    index: Annotated[
        list[int] | None, typer.Option(help="a unit; may be given again; by default some drawn at random")
    ] = None,
    length: Annotated[int | None, typer.Option(help="tokens in a string")] = None,
    seeds: Annotated[int | None, typer.Option(help="searches for each unit")] = None,
    text: Text = None,
    out: Out = None,
    seed: Seed = None,
    device: Device = None,
    limit: Limit = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Search for strings that activate units of TARGET, and test on unseen text whether they do so there."""
    from prosect.cli.run import command

    command(
        target,
        {
            "data.text": None if text is None else str(text),
            "synthesise.site": site,
            "synthesise.indices": index or None,
            "synthesise.length": length,
            "synthesise.seeds": seeds,
            "seed": seed,
            "device": device,
            "limit": limit,
        },
        out=out,
        dry_run=dry_run,
        as_json=as_json,
        quiet=quiet,
        verb="synthesise",
    )


@app.command()
def attribute(
    target: Target,
    method: Annotated[
        list[str] | None,
        typer.Option(help="saliency, integrated-gradients, occlusion ...; may be given again"),
    ] = None,
    text: Text = None,
    tokens: Annotated[int | None, typer.Option(help="most tokens of a window that are attributed")] = None,
    out: Out = None,
    seed: Seed = None,
    device: Device = None,
    limit: Limit = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Map which inputs an answer of TARGET depends on, and test whether replacing them says the same."""
    from prosect.cli.run import command

    command(
        target,
        {
            "data.text": None if text is None else str(text),
            "attribute.methods": method or None,
            "attribute.tokens": tokens,
            "seed": seed,
            "device": device,
            "limit": limit,
        },
        out=out,
        dry_run=dry_run,
        as_json=as_json,
        quiet=quiet,
        verb="attribute",
    )


@app.command()
def fit(
    target: Target,
    site: Annotated[
        list[str] | None,
        typer.Option(help="a site to read; may be given again; by default the middle of the network"),
    ] = None,
    writes: Annotated[
        list[str] | None,
        typer.Option(help="a site to write where that is another (transcoders), one for each --site"),
    ] = None,
    joint: Annotated[
        bool, typer.Option("--joint", help="one dictionary over all sites (crosscoder), not one for each")
    ] = False,
    skip: Annotated[bool, typer.Option("--skip", help="with a linear path around the latents")] = False,
    kind: Annotated[
        str, typer.Option(help="how it is trained: topk, batchtopk, matryoshka, l1, gated or jumprelu")
    ] = "topk",
    latents: Annotated[int | None, typer.Option(help="latents")] = None,
    k: Annotated[int | None, typer.Option(help="latents active at once, for kinds that fix that")] = None,
    tokens: Annotated[int | None, typer.Option(help="tokens to train on, repeats included")] = None,
    sweep: Annotated[
        str | None,
        typer.Option(help='a grid in one pass over the activations: "latents=512,1024 k=16,32 seed=0,1"'),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="NAME=VALUE of the kind or the recipe, such as rate=1e-3; may be given again"
        ),
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="run the model while training; nothing is harvested to disk")
    ] = False,
    store: Annotated[
        str | None, typer.Option(help="what activations are kept as: float32, float16 or bfloat16")
    ] = None,
    activations: Annotated[
        Path | None,
        typer.Option(help="folder to harvest to and keep, for other fits; else removed at the end"),
    ] = None,
    memory: Annotated[
        float | None, typer.Option(help="GiB for what is trained at once; by default half of what there is")
    ] = None,
    every: Annotated[int, typer.Option(help="training steps between checkpoints")] = 500,
    text: Text = None,
    out: Annotated[Path | None, typer.Option(help="folder; by default runs/fit-NAME")] = None,
    seed: Seed = None,
    device: Device = None,
    limit: Limit = None,
    trust_remote_code: Remote = False,
    allow_pickle: Pickle = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train sparse dictionaries on TARGET's activations; the same command resumes or finds them finished."""
    from prosect.cli.fit import Asked, command

    command(
        target,
        {
            "data.text": None if text is None else str(text),
            "seed": seed,
            "device": device,
            "limit": limit,
            "trust_remote_code": trust_remote_code or None,
            "allow_pickle": allow_pickle or None,
        },
        Asked(
            sites=tuple(site or ()),
            writes=tuple(writes or ()),
            joint=joint,
            skip=skip,
            settings={"kind": kind, "latents": latents, "k": k},
            more=tuple(set_ or ()),
            sweep=sweep or "",
            tokens=tokens,
            live=live,
            store=store or "",
            activations=activations,
            memory=memory,
            every=every,
        ),
        out=out,
        as_json=as_json,
        quiet=quiet,
    )


@app.command()
def spec(
    target: Target,
    text: Text = None,
    seed: Seed = None,
    device: Device = None,
    limit: Limit = None,
    as_json: AsJson = False,
) -> None:
    """Print the resolved spec of TARGET, every default written out, to edit and run."""
    from prosect.cli.spec import command

    command(
        target,
        {
            "data.text": None if text is None else str(text),
            "seed": seed,
            "device": device,
            "limit": limit,
        },
        as_json=as_json,
    )


@app.command()
def report(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="a run folder")],
) -> None:
    """Rebuild the report of RUN from its records; no model is opened."""
    from prosect.cli.report import command

    command(run_folder)


@app.command()
def verify(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="a run folder")],
    head: Annotated[str | None, typer.Option(help="a head hash published elsewhere")] = None,
    as_json: AsJson = False,
) -> None:
    """Check that no line of RUN's ledger was edited, deleted, inserted or reordered."""
    from prosect.cli.verify import command

    command(run_folder, head, as_json=as_json)


@app.command("ls")
def list_(
    what: Annotated[str, typer.Argument(help="models, sites, organisms, methods or presets")],
    targets: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TARGET]...", help="for sites: the model; for models --check: types"),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="models: build a small one of every type and open it (minutes)")
    ] = False,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="show no progress")] = False,
) -> None:
    """List what there is."""
    from prosect.cli.ls import command

    command(what, targets or [], check=check, as_json=as_json, quiet=quiet)
