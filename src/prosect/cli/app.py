"""The application and its verbs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from prosect.cli.options import AsJson, Device, DryRun, Limit, Pickle, Quiet, Remote, Seed, Target, Text, path
from prosect.cli.questions import QUESTIONS

app = typer.Typer(
    name="prosect",
    help="Takes a trained neural network apart and proves, or fails to prove, what its parts do.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


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
    dry_run: DryRun = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run the whole loop on TARGET and write a report; the same command resumes or finds a finished run."""
    from prosect.cli.run import command

    command(
        target,
        {
            "data.text": path(text),
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


for _verb, _ask in QUESTIONS.items():
    app.command(_verb)(_ask)


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
    cross_layer: Annotated[
        bool,
        typer.Option(
            "--cross-layer", help="with --joint: a latent reads one site, and writes it and later ones"
        ),
    ] = False,
    kind: Annotated[
        str,
        typer.Option(
            help="how it is trained: topk, batchtopk, matryoshka, l1, gated, jumprelu, or pursuit (topk, then "
            "encoded by matching pursuit)"
        ),
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
    end_to_end: Annotated[
        bool,
        typer.Option(
            "--end-to-end", help="train through the model: what counts is the KL of its predictions; live"
        ),
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
            "data.text": path(text),
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
            cross_layer=cross_layer,
            settings={"kind": kind, "latents": latents, "k": k},
            more=tuple(set_ or ()),
            sweep=sweep or "",
            tokens=tokens,
            live=live,
            end_to_end=end_to_end,
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
def induction(
    target: Target,
    rows: Annotated[int, typer.Option(help="blocks that heads are chosen on, and as many to measure")] = 64,
    length: Annotated[int, typer.Option(min=4, help="tokens in a block, which comes twice")] = 16,
    out: Annotated[Path | None, typer.Option(help="folder; by default runs/induction-NAME")] = None,
    seed: Seed = None,
    device: Device = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Find TARGET's induction heads, ablate them beside random heads, and write what goes without them."""
    from prosect.assay.circuits import Wanted
    from prosect.cli.circuits import command

    changes = (("seed", seed), ("device", device))
    wanted = Wanted("induction", target, rows, length, tuple(c for c in changes if c[1] is not None))
    command(wanted, out=out, as_json=as_json, quiet=quiet)


@app.command()
def names(
    target: Target,
    rows: Annotated[
        int, typer.Option(help="sentences that heads are chosen on, and as many to measure")
    ] = 64,
    out: Annotated[Path | None, typer.Option(help="folder; by default runs/names-NAME")] = None,
    seed: Seed = None,
    device: Device = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Class TARGET's heads on indirect-object sentences, ablate those that answer, and see what takes over."""
    from prosect.assay.circuits import Wanted
    from prosect.cli.circuits import command

    changes = (("seed", seed), ("device", device))
    wanted = Wanted("names", target, rows, changes=tuple(c for c in changes if c[1] is not None))
    command(wanted, out=out, as_json=as_json, quiet=quiet)


@app.command()
def audit(
    dictionaries: Annotated[
        list[str],
        typer.Argument(
            metavar="DICTIONARY...",
            help="a folder or file of prosect fit, another format, or a hub id; the first is audited, more seeds or "
            "widths of it are compared",
        ),
    ],
    model: Annotated[
        str | None, typer.Option(help="its model, as prosect run takes it; by default what its files say")
    ] = None,
    next_: Annotated[
        str | None, typer.Option("--next", help="a dictionary of a later site, for what weights predict (L7)")
    ] = None,
    concepts: Annotated[
        Path | None, typer.Option(help="JSON lines of labelled texts; else classes of tokens (L3, L4, L8)")
    ] = None,
    scaling: Annotated[
        Path | None,
        typer.Option(help='JSON list of {"compute": ..., "loss": ...} of models of the family (L1)'),
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="a line, L1 to L9; may be given again")] = None,
    positions: Annotated[int, typer.Option(min=500, help="most positions of text")] = 6000,
    site: Annotated[
        list[str] | None, typer.Option(help="what it reads, where its files do not say; may be given again")
    ] = None,
    writes: Annotated[list[str] | None, typer.Option(help="what it writes, where that is another")] = None,
    format_: Annotated[str | None, typer.Option("--format", help="of its files; else recognised")] = None,
    text: Text = None,
    out: Annotated[Path | None, typer.Option(help="folder; by default runs/audit-NAME")] = None,
    seed: Seed = None,
    device: Device = None,
    limit: Limit = None,
    trust_remote_code: Remote = False,
    allow_pickle: Pickle = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure the eight limitations of a sparse dictionary, each beside its controls, and write a scorecard."""
    from prosect.assay.auditing import Question
    from prosect.cli.audit import command

    options = {
        "format": format_,
        "sites": tuple(site) if site else None,
        "targets": tuple(writes) if writes else None,
        "allow_pickle": allow_pickle,
    }
    question = Question(
        tuple(dictionaries),
        model=model or "",
        next=next_ or "",
        concepts=concepts,
        scaling=scaling,
        changes={
            "data.text": path(text),
            "device": device,
            "limit": limit,
            "trust_remote_code": trust_remote_code or None,
            "allow_pickle": allow_pickle or None,
        },
        seed=seed,
        positions=positions,
        only=tuple(only or ()),
        options={k: v for k, v in options.items() if v},
    )
    command(question, out=out, as_json=as_json, quiet=quiet)


@app.command()
def bench(
    suite: Annotated[str, typer.Argument(metavar="[SUITE]", help="quick or full")] = "quick",
    task: Annotated[list[str] | None, typer.Option(help="only this task; may be given again")] = None,
    method: Annotated[list[str] | None, typer.Option(help="only this method; may be given again")] = None,
    organism: Annotated[
        list[str] | None, typer.Option(help="this organism, in the suite or not; may be given again")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(help="of each organism; by default what the suite says")
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="that a method has for each answer")] = None,
    jobs: Annotated[
        int | None, typer.Option(help="processes side by side; by default one for each core")
    ] = None,
    sealed_seed: Annotated[
        str | None,
        typer.Option(
            help="your own seed, from which organisms and programs are drawn; - reads it from input"
        ),
    ] = None,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            help="instead, run the loop on organisms and write to this file how often its claims are true"
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="run folder; by default runs/bench-SUITE")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="print what would be done; do nothing")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Judge every method on networks whose mechanism is known; the same command resumes."""
    import sys

    from prosect.bench.plan import Asked
    from prosect.cli.bench import calibrated, command

    if calibrate is not None:
        others = {
            f"the suite {suite}": suite != "quick",
            "--task": task,
            "--method": method,
            "--seconds": seconds is not None,
            "--sealed-seed": sealed_seed is not None,
        }
        calibrated(
            calibrate,
            tuple(organism or ()),
            seeds=seeds,
            jobs=jobs,
            out=out,
            dry_run=dry_run,
            as_json=as_json,
            quiet=quiet,
            others=[name for name, given in others.items() if given],
        )
        return
    sealed = sys.stdin.readline().strip() if sealed_seed == "-" else sealed_seed
    asked = Asked(
        suite,
        tuple(task or ()),
        tuple(method or ()),
        tuple(organism or ()),
        seeds=seeds,
        sealed=sealed or "",
        seconds=seconds,
    )
    command(asked, jobs=jobs, out=out, dry_run=dry_run, as_json=as_json, quiet=quiet)


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
            "data.text": path(text),
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
        typer.Argument(
            metavar="[TARGET]...",
            help="for sites: the model; for organisms: which; for models --check: types",
        ),
    ] = None,
    check: Annotated[
        bool,
        typer.Option(
            "--check",
            help="models: build a small one of every type and open it; organisms: build them again and compare "
            "with what was recorded (minutes)",
        ),
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """List what there is."""
    from prosect.cli.ls import command

    command(what, targets or [], check=check, as_json=as_json, quiet=quiet)
