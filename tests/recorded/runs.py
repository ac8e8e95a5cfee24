"""Runs whose numbers a change of the code must not change: every kind of site, six methods, attacks, measures.

    python -m tests.recorded.runs /somewhere/before       # records all of them
    python -m tests.recorded.runs /somewhere/after /somewhere/before   # records again, and compares bit for bit

`test_recorded.py` does the same for a small part of them against the files kept in `tests/data/recorded`.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch

import mechunlearn as mu
from mechunlearn.models import fingerprint, slots
from mechunlearn.sites import DEFAULT

from ..architectures import VOCABULARY, tiny
from ..pairs import changed, word_level

UNTIMED = ("seconds",)  # columns that no two runs share
SITES = (
    *DEFAULT, "residual", "mlp_output", "head_output", "head_output[0,2]", "mlp_coefficients[1,5,7]",
    "value_vectors[3,5]", "attention_qk", "attention_ov", "norms", "block", "final_norm", "everything",
    "blocks.{l}.attn.hook_q", "blocks.1.hook_resid_mid", r"blocks\.[01]\.mlp",
)  # fmt: skip
PARALLEL = tuple(site for site in SITES if "resid_mid" not in site)  # such blocks have no stream in the middle
ARCHITECTURES = {"gpt2": SITES, "gemma2": SITES, "neox": PARALLEL, "phi3": SITES, "qwen3": SITES}
METHODS = {
    "npo": mu.NPO(retain="kl", retain_weight=10.0, text_weight=5.0),
    "gradient_difference": mu.GradientDifference(),
    "dpo": mu.DPO(),
    "rmu": mu.RMU(),
    "circuit_breakers": mu.CircuitBreakers(),
    "cir": mu.CIR(),
    "layered": mu.Layered(method=mu.NPO(), folds=2),
}


@cache
def organism():
    torch.set_num_threads(1)
    return mu.load("organism", device="cpu")


@cache
def facts() -> mu.Facts:
    whole = mu.Facts.builtin("organism")
    parts = [whole.where(role="forget", fold=fold)[:10] for fold in (1, 2)] + [whole.near[:12], whole.far[:12]]
    return whole.with_items(fact for part in parts for fact in part)


@cache
def damaged(scale: float = 0.03):
    """The organism with every parameter moved a little."""
    return changed(organism(), lambda slot: True, scale)


@cache
def pair(name: str, folder: str):
    words = word_level([f"w{number}" for number in range(VOCABULARY - 3)], Path(folder))
    model = mu.load(tiny(name), device="cpu", tokenizer=words)
    return model, changed(model, lambda slot: slot.layer >= 1, 0.1)


def random_facts(count: int = 5) -> mu.Facts:
    rng = np.random.default_rng(0)
    rows = [[f"w{word}" for word in rng.integers(VOCABULARY - 3, size=6 + number % 3)] for number in range(count)]
    return mu.Facts(mu.Fact(" ".join(row[:-2]), " ".join(row[-2:]), id=f"fact-{i}") for i, row in enumerate(rows))


def dissected(before, after, asked, **options) -> dict[str, pd.DataFrame]:
    found = mu.dissect(before, after, asked, prompts="own", progress=False, **options)
    return {name: getattr(found, name) for name in ("frame", "controls", "facts", "answers")}


def architecture(name: str, sites: tuple[str, ...]) -> dict[str, pd.DataFrame]:
    with tempfile.TemporaryDirectory() as folder:
        return dissected(*pair(name, folder), random_facts(), sites=sites, windows=["sliding:3", "single", "all"])


def weights(model) -> pd.DataFrame:
    """What a model's weights are: a hash of each tensor."""
    rows = [(slot.path, float(slot.tensor.detach().double().sum()), slot.tensor.numel()) for slot in slots(model)]
    return pd.DataFrame(rows, columns=["path", "sum", "elements"]).assign(fingerprint=fingerprint(model)["weights"])


def unlearned(method) -> dict[str, pd.DataFrame]:
    run = mu.unlearn(
        organism(), method, facts().forget, facts().retain, text=mu.organism_text()[:8],
        retain_text=mu.organism_text("train")[:16], steps=8, evaluate_every=4, seed=3, progress=False,
    )  # fmt: skip
    return {"frame": run.frame, "weights": weights(run.model)}


def attacked(*attacks) -> dict[str, pd.DataFrame]:
    found = mu.attack(
        damaged(), facts(), suite=attacks, before=organism(), never_knew=mu.load("organism:never-knew", device="cpu"),
        text=mu.organism_text("train")[:16], progress=False,
    )  # fmt: skip
    return {"frame": found.frame}


def evaluated() -> dict[str, pd.DataFrame]:
    found = mu.evaluate(
        damaged(), facts(), text=mu.organism_text()[:20], before=organism(), letters=False, batch_size=32,
        progress=False,
    )  # fmt: skip
    return {"facts": found.frame.rename(columns={"question": "id"}), "texts": found.texts}


def relearned() -> dict[str, pd.DataFrame]:
    forget = facts().forget
    found = mu.relearn(damaged(), forget.where(fold=1), forget.where(fold=2), progress=False)
    return {"frame": found.frame}


RUNS: dict[str, Callable[[], dict[str, pd.DataFrame]]] = {
    "dissect-organism": lambda: dissected(organism(), damaged(), facts().forget, sites=SITES),
    "dissect-back": lambda: dissected(
        organism(), damaged(), facts().forget, direction="after->before", windows=["up_to", "from", (1, 3)]
    ),
    **{
        f"dissect-{name}": lambda where=where: dissected(
            organism(), damaged(), facts().forget[:6], sites=("mlp_coefficients", "residual"), positions=where
        )
        for name, where in (("answer", "answer"), ("prompt", "prompt"), ("paper", "paper"), ("given", [2, 3]))
    },
    "dissect-each": lambda: dissected(
        organism(), damaged(), facts().forget[:4],
        sites=("mlp_coefficients", "residual", "attention_output", "blocks.{l}.attn.hook_q"),
        windows="single", positions="each",
    ),
    **{f"dissect-{name}": lambda n=name, s=sites: architecture(n, s) for name, sites in ARCHITECTURES.items()},
    **{f"unlearn-{name}": lambda method=method: unlearned(method) for name, method in METHODS.items()},
    "attack-relearn": lambda: attacked(
        mu.Relearn(epochs=2), mu.Relearn(epochs=1, trainable="lora", form="choice"), mu.Relearn(epochs=1, data="text")
    ),
    "attack-others": lambda: attacked(
        mu.Prompts(), mu.Quantise(scheme="int4"), mu.Noise(), mu.Interpolate(), mu.AblateDirection(), mu.Steer()
    ),
    "relearn": relearned,
    "evaluate": evaluated,
}  # fmt: skip


def record(name: str, folder: Path) -> None:
    for frame_name, frame in RUNS[name]().items():
        kept = frame.drop(columns=[column for column in UNTIMED if column in frame])
        folder.mkdir(parents=True, exist_ok=True)
        kept.to_parquet(folder / f"{name}.{frame_name}.parquet", index=False)


def differences(now: pd.DataFrame, then: pd.DataFrame) -> Iterator[str]:
    """What differs in the columns that the older frame has, in words; nothing where all bits are the same."""
    if len(now) != len(then):
        yield f"{len(then)} rows became {len(now)}"
        return
    for column in then:
        if column not in now:
            yield f"column {column} is gone"
            continue
        new, old = now[column], then[column]
        same = (new.astype(object) == old.astype(object)) | (new.isna() & old.isna())
        if not same.fillna(False).all():
            number = pd.api.types.is_float_dtype(old)
            far = f", at most {float((new - old).abs().max()):.3g}" if number else f": {old[~same].iloc[0]} before"
            yield f"{column}: {int((~same).sum())} of {len(old)} rows differ{far}"


def main(folder: str, reference: str | None = None) -> None:
    torch.set_num_threads(1)
    for name in RUNS:
        record(name, Path(folder))
        print("recorded", name, flush=True)
    different = 0
    for path in sorted(Path(reference).glob("*.parquet")) if reference else ():
        for line in differences(pd.read_parquet(Path(folder) / path.name), pd.read_parquet(path)):
            different += 1
            print(f"{path.stem}: {line}")
    print(f"{different} differences" if reference else "no reference given")


if __name__ == "__main__":
    main(*sys.argv[1:])
