"""Make `pylm`, the language model of Python source that ships with prosect.

Three steps, so that the middle one can run on a machine that has a GPU and nothing but torch and transformers:

    python scripts/train_pylm.py prepare WORK     # corpus, hold-out, tokenizer, tokens, baselines
    python scripts/train_pylm.py train WORK       # the model; minutes on a GPU, about an hour on a CPU
    python scripts/train_pylm.py finish WORK OUT  # figures, model card, fp16 weights

Half of the standard library's near-duplicate clusters are held out, chosen by content. The model is trained on
the rest and on the standard library's own tests, less the tests that nearly duplicate a held-out file. A twentieth
of those documents is set aside to watch the loss. A share of the training rows (``--repeats``) is not text but a
random block of tokens repeated; the model card says how large it was.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from pathlib import Path

import numpy as np
import torch

SEED = 20260101
VOCABULARY = 4096
CONTEXT = 256
HELD_OUT = 0.5
WATCHED = 0.05
WATCHED_TOKENS = 60_000
CONFIG = {
    "vocab_size": VOCABULARY,
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "max_position_embeddings": CONTEXT,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 1,
}


def prepare(work: Path) -> None:
    """Corpus → hold-out → tokenizer → tokens."""
    import sysconfig

    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    from prosect.core.canonical import digest
    from prosect.data.corpus import LEFT_OUT, _read, standard_library
    from prosect.data.duplicates import clusters, shingles

    root = Path(sysconfig.get_paths()["stdlib"])
    library = standard_library(root)
    outside = LEFT_OUT - {"test", "tests", "idle_test"}
    tests = [
        p
        for p in sorted(root.rglob("*.py"))
        if not outside.intersection(p.relative_to(root).parts)
        and {"test", "tests", "idle_test"}.intersection(p.relative_to(root).parts)
    ]
    documents = [*library.documents, *_read(root, tests)[0]]
    is_library = np.arange(len(documents)) < len(library)
    labels = clusters([shingles(d.text) for d in documents])
    chance = {
        c: int(digest(["held out", c_digest])[:8], 16) / 16**8
        for c, c_digest in _keys(documents, labels).items()
    }
    mixed = {c for c in set(labels.tolist()) if is_library[labels == c].any()}
    held = {c for c in mixed if chance[c] < HELD_OUT}
    watched = {c for c in set(labels.tolist()) - held if chance[c] > 1 - WATCHED}
    group = np.where(
        np.isin(labels, list(held)), "held", np.where(np.isin(labels, list(watched)), "watched", "train")
    )
    seen = [d for d, g in zip(documents, group, strict=True) if g != "held"]
    text = {
        g: [d.text for d, k in zip(documents, group, strict=True) if k == g] for g in ("train", "watched")
    }
    text["held"] = [
        d.text for d, k, lib in zip(documents, group, is_library, strict=True) if k == "held" and lib
    ]

    tokenizer = Tokenizer(models.BPE(byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        text["train"],
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=["<|begin|>", "<|pad|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    work.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(work / "tokenizer.json"))
    arrays = {}
    for g, texts in text.items():
        encoded = [e.ids for e in tokenizer.encode_batch(texts)]
        arrays[g] = np.array([t for ids in encoded for t in ids], dtype=np.uint16)
        arrays[f"{g}_starts"] = np.cumsum([0, *map(len, encoded)])
    np.savez(work / "tokens.npz", **arrays)
    files = {d.name: d.digest[:16] for d in seen}
    (work / "training_files.json").write_text(json.dumps(files, indent=0, sort_keys=True) + "\n")
    trained = [d for d, g, lib in zip(documents, group, is_library, strict=True) if g != "held" and lib]
    sketch = np.unique(np.concatenate([shingles(d.text) for d in trained]))
    np.save(work / "sketch.npy", sketch[sketch % np.uint64(64) == 0])
    print({g: (len(v), len(arrays[g])) for g, v in text.items()}, len(files), "files")


def _keys(documents: list, labels: np.ndarray) -> dict[int, str]:
    from prosect.core.canonical import digest

    found: dict[int, list[str]] = {}
    for d, label in zip(documents, labels.tolist(), strict=True):
        found.setdefault(label, []).append(d.digest)
    return {label: digest(sorted(digests)) for label, digests in found.items()}


def windows(tokens: torch.Tensor, rows: int, draw: torch.Generator, repeats: float) -> torch.Tensor:
    """Random windows, the beginning token first; a share of rows may be synthetic repeats."""
    room = CONTEXT - 1
    at = torch.randint(0, len(tokens) - room, (rows,), generator=draw)
    x = tokens[at[:, None] + torch.arange(room)]
    for i in torch.nonzero(torch.rand(rows, generator=draw) < repeats)[:, 0].tolist():
        n = int(torch.randint(8, 129, (1,), generator=draw))
        block = torch.randint(2, VOCABULARY, (n,), generator=draw)
        x[i] = block.repeat(math.ceil(room / n))[:room]
    return torch.cat([torch.zeros(rows, 1, dtype=torch.long), x], dim=1)


def losses(model: torch.nn.Module, tokens: np.ndarray, starts: np.ndarray, device: str) -> np.ndarray:
    """Tokens and summed loss (nats) of each document, in windows that start with the beginning token."""
    sums = np.zeros((len(starts) - 1, 2))
    pending: list[torch.Tensor] = []
    whose: list[int] = []

    def flush() -> None:
        if not pending:
            return
        width = max(map(len, pending))
        x = torch.full((len(pending), width), 1)
        for i, p in enumerate(pending):
            x[i, : len(p)] = p
        with torch.no_grad():
            logits = model(input_ids=x.to(device)).logits.float()
        y = x[:, 1:].to(device)
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), y.flatten(), reduction="none")
        real = (y != 1).double()
        total = (loss.reshape(y.shape).double() * real).sum(dim=1)
        np.add.at(sums, np.array(whose), torch.stack([real.sum(dim=1), total], dim=1).cpu().numpy())
        pending.clear()
        whose.clear()

    for n, (a, b) in enumerate(itertools.pairwise(starts)):
        document = torch.from_numpy(tokens[a:b].astype(np.int64))
        for at in range(0, len(document), CONTEXT - 1):
            pending.append(torch.cat([torch.zeros(1, dtype=torch.long), document[at : at + CONTEXT - 1]]))
            whose.append(n)
            if len(pending) == 32:
                flush()
    flush()
    return sums


def repeats(model: torch.nn.Module, device: str, length: int = 64, rows: int = 256) -> np.ndarray:
    """Mean loss on the first and the second copy of a random block, for each row."""
    draw = torch.Generator().manual_seed(SEED + 1)
    block = torch.randint(2, VOCABULARY, (rows, length), generator=draw)
    x = torch.cat([torch.zeros(rows, 1, dtype=torch.long), block, block], dim=1).to(device)
    with torch.no_grad():
        logp = model(input_ids=x).logits.float().log_softmax(-1)
    loss = -logp[:, :-1].gather(-1, x[:, 1:, None])[..., 0]
    return torch.stack([loss[:, :length].mean(dim=1), loss[:, length + 1 :].mean(dim=1)], dim=1).cpu().numpy()


def train(
    work: Path,
    *,
    steps: int,
    rows: int,
    rate: float,
    repeats: float,
    decay: float,
    name: str,
    resume: int = 0,
) -> None:
    """AdamW with warm-up and cosine decay; keeps the checkpoint with the lowest watched loss.

    ``resume`` > 0 goes on from that checkpoint at that step of the schedule, with fresh optimiser moments and a
    warm-up of their own; the record says so.
    """
    from safetensors.torch import load_file, save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    data = np.load(work / "tokens.npz")
    tokens = torch.from_numpy(data["train"].astype(np.int64))
    torch.manual_seed(SEED)  # initialisation inside transformers reads the global generator
    model = LlamaForCausalLM(LlamaConfig(**CONFIG)).to(device)
    if resume:
        kept = load_file(work / f"{name}.safetensors")
        lacking = model.load_state_dict({n: p.float() for n, p in kept.items()}, strict=False).missing_keys
        assert lacking == ["lm_head.weight"], lacking
    if device == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = True
    plain = [p for n, p in model.named_parameters() if p.ndim < 2]
    heavy = [p for n, p in model.named_parameters() if p.ndim >= 2]
    groups = [{"params": heavy, "weight_decay": decay}, {"params": plain, "weight_decay": 0.0}]
    optimiser = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.95), fused=True)
    run = torch.compile(model) if device == "cuda" else model
    draw = torch.Generator().manual_seed(SEED + resume)
    best, log, started = math.inf, [], time.time()
    some = data["watched_starts"][data["watched_starts"] <= WATCHED_TOKENS]
    for step in range(resume, steps):
        warm = min(1.0, (step + 1 - resume) / 200)
        for group in optimiser.param_groups:
            group["lr"] = rate * warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        x = windows(tokens, rows, draw, repeats).to(device)
        with torch.autocast(device, dtype=torch.bfloat16):
            logits = run(input_ids=x).logits
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), x[:, 1:].flatten())
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        if (step + 1) % 500 == 0 or step + 1 == steps:
            model.eval()
            counted = losses(model, data["watched"], some, device).sum(axis=0)
            watched = float(counted[1] / counted[0])
            first, second = repeats(model, device).mean(axis=0).tolist()
            model.train()
            entry = [
                step + 1,
                round(float(loss.detach()), 4),
                round(watched, 4),
                round(first, 3),
                round(second, 3),
            ]
            log.append(entry)
            print(*entry, f"{time.time() - started:.0f} s", flush=True)
            if watched < best:
                best = watched
                keep = {n: p.detach().half().cpu().contiguous() for n, p in model.state_dict().items()}
                keep.pop("lm_head.weight", None)  # tied to the embedding
                save_file(keep, work / f"{name}.safetensors", metadata={"format": "pt"})
    recipe = {
        "steps": steps,
        "rows": rows,
        "rate": rate,
        "repeats": repeats,
        "decay": decay,
        "seed": SEED,
        "resumed at": resume,
    }
    recipe |= {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "torch": torch.__version__,
    }
    recipe |= {"log": log, "columns": ["step", "loss", "watched loss", "first copy", "second copy"]}
    (work / f"{name}.json").write_text(json.dumps(recipe, indent=1) + "\n")


def baselines(work: Path) -> dict[str, np.ndarray]:
    """Tokens and summed loss of each held-out document under a unigram and an interpolated bigram table.

    The strength with which the bigram table leans on the unigram one is chosen on the watched documents.
    """
    data = np.load(work / "tokens.npz")
    train_tokens = data["train"].astype(np.int64)
    unigram = np.bincount(train_tokens, minlength=VOCABULARY) + 1.0
    unigram /= unigram.sum()
    pairs = np.zeros((VOCABULARY, VOCABULARY), dtype=np.float32)
    np.add.at(pairs, (train_tokens[:-1], train_tokens[1:]), 1.0)
    seen = pairs.sum(axis=1, keepdims=True)

    def table(part: str, strength: float) -> np.ndarray:
        sums = []
        for a, b in itertools.pairwise(data[f"{part}_starts"]):
            x = data[part][a:b].astype(np.int64)
            p = (pairs[x[:-1], x[1:]] + strength * unigram[x[1:]]) / (seen[x[:-1], 0] + strength)
            sums.append([len(x), -np.log(p).sum() - np.log(unigram[x[:1]]).sum()])
        return np.array(sums, dtype=float)

    def loss(strength: float) -> float:
        count, total = table("watched", strength).sum(axis=0)
        return float(total / count)

    strength = min((1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0), key=loss)
    return {"unigram": table("held", 1e12), "bigram": table("held", strength)}


def finish(work: Path, out: Path, name: str) -> None:
    """Write the Hugging Face folder that ships, measured in float32 on the CPU as users will run it."""
    import shutil

    from safetensors.numpy import save_file
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

    out.mkdir(parents=True, exist_ok=True)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(work / "tokenizer.json"),
        bos_token="<|begin|>",
        eos_token="<|begin|>",
        pad_token="<|pad|>",
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )
    tokenizer.save_pretrained(out)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "dtype": "float16", **CONFIG}
    (out / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    shutil.copy(work / f"{name}.safetensors", out / "model.safetensors")
    shutil.copy(work / "training_files.json", out / "training_files.json")
    save_file({"shingles": np.load(work / "sketch.npy")}, out / "training_sketch.safetensors")
    model = LlamaForCausalLM.from_pretrained(out, dtype=torch.float32).eval()
    data = np.load(work / "tokens.npz")
    found = {"held-out loss": losses(model, data["held"], data["held_starts"], "cpu"), **baselines(work)}
    copies = repeats(model, "cpu")
    one = np.ones(len(copies))
    found |= {
        name: np.stack([one, copies[:, i]], axis=1) for i, name in enumerate(("first copy", "second copy"))
    }
    found["second copy minus first"] = np.stack([one, copies[:, 1] - copies[:, 0]], axis=1)
    figures = {name: _measured(sums) for name, sums in found.items()}
    figures["held-out tokens"] = len(data["held"])
    recipe = json.loads((work / f"{name}.json").read_text())
    recipe |= {"training tokens": len(data["train"]), "watched tokens": len(data["watched"])}
    recipe |= {
        "training files": len(json.loads((work / "training_files.json").read_text())),
        "figures": figures,
    }
    (out / "training.json").write_text(json.dumps(recipe, indent=1) + "\n")
    print(json.dumps(figures, indent=1))


def _measured(sums: np.ndarray) -> list[float | None]:
    """Estimate and ends of its 95 % interval; documents or rows are the units."""
    from prosect.core.intervals import Mean, Resamples
    from prosect.core.seeds import Seed

    got = Resamples(len(sums), 1999, Seed(SEED)).measure([sums], Mean()).measured
    return [None if v is None else round(v, 4) for v in (got.estimate, got.low, got.high)]


def main() -> None:
    """Parse and run one step."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=["prepare", "train", "finish"])
    parser.add_argument("work", type=Path)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--name", default="pylm")
    parser.add_argument("--steps", type=int, default=7500)
    parser.add_argument("--resume", type=int, default=0)
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--decay", type=float, default=0.1)
    parser.add_argument("--repeats", type=float, default=0.03)
    a = parser.parse_args()
    if a.step == "prepare":
        prepare(a.work)
    elif a.step == "train":
        train(
            a.work,
            steps=a.steps,
            rows=a.rows,
            rate=a.rate,
            repeats=a.repeats,
            decay=a.decay,
            name=a.name,
            resume=a.resume,
        )
    elif a.out is None:
        parser.error("finish needs OUT")
    else:
        finish(a.work, a.out, a.name)


if __name__ == "__main__":
    main()
