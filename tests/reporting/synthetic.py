"""Run folders with made-up, realistic numbers: what the report reads, without a model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

METRICS = ("mse", "mse_centred", "kl", "answer_logprob")
SHAPES = {  # site: (kind, peak recovery, how late it comes)
    "mlp_coefficients": ("activation", 0.82, 1.0),
    "attention_output": ("activation", 0.45, 0.4),
    "mlp_coefficients+attention_output": ("activation", 0.96, 0.7),
    "value_vectors": ("parameters", 0.02, 0.5),
    "mlp_keys": ("parameters", 0.35, 0.5),
}
NEITHER = ("embedding", "final_norm", "unembedding")


def frame(
    n_facts: int = 24,
    n_layers: int = 6,
    *,
    directions: tuple[str, ...] = ("before->after",),
    undefined: int = 2,
    wild: bool = False,
    positions: bool = False,
    seed: int = 0,
) -> pd.DataFrame:
    """The frame of a dissection; the last `undefined` facts have a baseline below the noise floor."""
    rng = np.random.default_rng(seed)
    sliding = {(max(0, c - 2), min(n_layers - 1, c + 2)) for c in range(n_layers)}
    windows = sorted(sliding | {(i, i) for i in range(n_layers)} | {(0, n_layers - 1)})
    patches = [(site, *window) for site in SHAPES for window in windows]
    patches += [(site, -1, -1) for site in NEITHER]
    rows = []
    for direction in directions:
        for site, first, last in patches:
            kind, peak, late = SHAPES.get(site, ("parameters", 0.01, 0.5))
            share = (last - first + 1) / n_layers
            depth = 1 - abs((first + last) / 2 / (n_layers - 1) - late)
            level = peak if first < 0 else peak * min(1.0, 2 * share) ** 0.4 * depth
            if wild and site == "mlp_keys" and (first, last) == (1, 5):
                level = -7.0
            for metric in METRICS:
                for fact in range(n_facts):
                    defined = fact < n_facts - undefined
                    baseline = rng.gamma(4.0) if defined else 1e-9
                    recovery = level + rng.normal(0, 0.05)
                    rows.append((str(fact), site, kind, direction, first, last, metric, baseline, recovery, defined))
    table = pd.DataFrame(
        rows,
        columns=[
            *["fact", "site", "kind", "direction", "first_layer", "last_layer", "metric"],
            *["baseline", "recovery", "defined"],
        ],
    )
    table.insert(1, "question", table["fact"])
    table["position"] = pd.array([pd.NA] * len(table), dtype="Int64")
    table["token"] = pd.array([None] * len(table), dtype="string")
    if positions:
        table = pd.concat([table, _maps(n_facts, n_layers, rng)], ignore_index=True)
    table["distance"] = table["baseline"] * (1 - table["recovery"])
    table["recovery"] = table["recovery"].where(table["defined"])
    return table


def _maps(n_facts: int, n_layers: int, rng: np.random.Generator) -> pd.DataFrame:
    tokens = ["<s>", "The", "capital", "of", "Mara", "vell", "is", "Ost", "en"]
    rows = [
        {
            "fact": str(fact),
            "question": str(fact),
            "site": site,
            "kind": "activation",
            "direction": "before->after",
            "first_layer": layer,
            "last_layer": layer,
            "metric": metric,
            "baseline": rng.gamma(4.0),
            "recovery": rng.normal(0, 0.05) + 0.9 * (position - 4 == layer) - 0.4 * (position == 8) * (layer == 0),
            "defined": True,
            "position": position,
            "token": token,
        }
        for site in ("residual", "attention_output", "mlp_output")
        for layer in range(n_layers)
        for position, token in enumerate(tokens)
        for metric in METRICS
        for fact in range(min(n_facts, 4))
    ]
    return pd.DataFrame(rows).astype({"position": "Int64", "token": "string"})


def controls(failing: bool = False) -> pd.DataFrame:
    rows = [
        ("self-patch", "mlp_coefficients", "mse", 0.0, 0.0, 1e-6, True),
        ("all layers at once", "mlp_coefficients+attention_output", "mse", None, 0.97, None, None),
        ("restore everything", "everything", "mse", 1.0, 1.0, 1e-6, True),
        ("empty window", "mlp_coefficients", "mse", 0.0, 0.21 if failing else 0.0, 1e-6, not failing),
    ]
    return pd.DataFrame(rows, columns=["control", "site", "metric", "expected", "measured", "tolerance", "passed"])


def facts(n: int = 24, hostile: list[str] | None = None) -> pd.DataFrame:
    texts = hostile or []
    return pd.DataFrame(
        {
            "fact": [str(i) for i in range(n)],
            "question": [str(i) for i in range(n)],
            "prompt": [texts[i] if i < len(texts) else f"The capital of country {i} is" for i in range(n)],
            "answer": [texts[i] if i < len(texts) else f"town {i}" for i in range(n)],
            "before_answer": [texts[i] if i < len(texts) else f"town {i}" for i in range(n)],
            "after_answer": [texts[i] if i < len(texts) else "the river" for i in range(n)],
            "before_logprob": [-0.05] * n,
            "after_logprob": [-9.0] * n,
            "before_correct": [True] * n,
            "after_correct": [i == 3 for i in range(n)],
        }
    )


def answers(table: pd.DataFrame, hostile: list[str] | None = None) -> pd.DataFrame:
    """Under every patch: right where more than half of the distance is made good."""
    texts = hostile or []
    rows = table[(table["metric"] == "mse") & table["position"].isna()].reset_index(drop=True)
    found = rows[["fact", "question", "site", "direction", "first_layer", "last_layer"]].assign(
        correct=rows["recovery"] > 0.5
    )
    number = found["fact"].astype(int)
    right = [texts[i] if i < len(texts) else f"town {i}" for i in number]
    wrong = [texts[-1 - i] if i < len(texts) else "the river" for i in number]
    return found.assign(answer=np.where(found["correct"], right, wrong))


def about(n: int = 24, **changes: object) -> dict[str, object]:
    return {
        "question": "What did npo change?",
        "before": "organism",
        "after": "runs/demo/npo/model",
        "facts": {
            "name": "organism",
            "format": "mechunlearn",
            "n": n,
            "hash": "ab" * 32,
            "template": {"bos": None},
        },
        "comparison": {
            "tensors": 57,
            "differ": 2,
            "names": ["model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight"],
            "relative_change": {"mlp_keys": {"mean": 0.021, "max": 0.03}},
        },
        "noise_floor": dict.fromkeys(METRICS, 1e-6),
        "settings": {"sites": list(SHAPES), "batch_size": 16},
        "versions": {"mechunlearn": "0.1.0", "torch": "2.13.0"},
        "windows": {"sliding(5)": [[0, 2], [0, 3]], "single": [[0, 0]], "all": [[0, 5]]},
        "positions": "all",
        "positions_rule": "positions whose logits predict an answer token",
        "seed": 0,
        "dtype": "float32",
        "device": "cpu",
        "seconds": 12.5,
        **changes,
    }


def write_dissection(
    folder: Path,
    *,
    table: pd.DataFrame | None = None,
    failing: bool = False,
    hostile: list[str] | None = None,
    **changes: object,
) -> Path:
    table = frame() if table is None else table
    n = max(table["fact"].nunique(), len(hostile or []))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"kind": "dissection", "about": about(n, **changes)}))
    table.to_parquet(folder / "frame.parquet")
    controls(failing).to_parquet(folder / "controls.parquet")
    facts(n, hostile).to_parquet(folder / "facts.parquet")
    answers(table, hostile).to_parquet(folder / "answers.parquet")
    return folder


def write_unlearning(folder: Path, steps: int = 60, **told: object) -> Path:
    step = np.arange(0, steps + 1, 10)
    gone = np.exp(-step / 15)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(
        json.dumps(
            {
                "kind": "unlearning",
                "settings": {"method": "NPO", "beta": 0.1},
                "about": {
                    "settings": {"method": "NPO", "budget": {"kl": 0.1}, "prompts": "held_out"},
                    "stopped": "all steps done",
                    "step": int(step[-1]),
                    **told,
                },
                "versions": {"torch": "2.13.0"},
            }
        )
    )
    pd.DataFrame(
        {
            "stage": 1,
            "step": step,
            "inside": True,
            "scale": 1.0,
            "loss": 3 * gone + 0.2,
            "forget_recall": gone,
            "near_recall": 1 - 0.1 * (1 - gone),
            "far_recall": 1 - 0.02 * (1 - gone),
            "text_loss": 2 + 0.1 * (1 - gone),
            "text_kl": 0.05 * (1 - gone),
        }
    ).to_parquet(folder / "frame.parquet")
    return folder


def attack_frame(
    recalls: dict[tuple[str, str], tuple[float, float]],
    *,
    n_facts: int = 40,
    needing_before: tuple[str, ...] = (),
    before: float | None = None,
    steps: int = 3,
    twin: bool = True,
) -> pd.DataFrame:
    """The frame of attacks; recall of (after, never-knew) by (attack, setting), at the last step of relearning.

    The first so many facts are answered, so that means are exact. The model before is asked under prompts.
    """
    rows = []

    def ask(attack: str, setting: str, step: int, model: str, recall: float, role: str = "forget") -> None:
        for fact in range(n_facts):
            right = fact < round(recall * n_facts)
            name = f"{role}/{fact}"
            rows.append((attack, setting, "", step, model, name, f"{name}#h0", role, fact % 4, right, right * 0.9, 2))

    for model in ("after", "never-knew", "before"):
        ask("none", "", 0, model, 1.0 if model == "before" else 0.05)
    for (attack, setting), pair in recalls.items():
        for model, recall in zip(("after", "never-knew")[: 1 + twin], pair, strict=False):
            last = steps if attack == "relearn" else 0
            for step in range(last + 1):
                ask(attack, setting, step, model, recall * (step + 1) / (last + 1))
            if attack == "relearn":
                ask(attack, setting, last, model, 0.9, role="near")
        if attack == "prompts" and before is not None:
            ask(attack, setting, 0, "before", before)
    names = ["attack", "setting", "part", "step", "model", "fact", "question", "role", "fold", "correct"]
    names += ["probability", "tokens"]
    table = pd.DataFrame(rows, columns=names)
    return table[twin | (table["model"] != "never-knew")].assign(
        helped=lambda found: found["attack"].isin(needing_before), broke=""
    )


def write_attacks(
    folder: Path, table: pd.DataFrame, left_out: dict[str, str] | None = None, weights: str = "cd" * 16
) -> Path:
    settings = {
        "attacks": [{"attack": "relearn", "learning_rate": 3e-4}, {"attack": "prompts", "frames": ["few-shot"]}],
        "left_out": left_out or {},
        "facts": "ab" * 32,
        "models": {"after": {"weights": weights}},
        "prompts": "held_out",
        "seed": 0,
    }
    folder.mkdir(parents=True, exist_ok=True)
    content = {
        "kind": "attacks",
        "settings": settings,
        "about": {"settings": settings, "models": {"after": "runs/npo/model", "never-knew": "organism:never-knew"}},
        "versions": {"torch": "2.13.0"},
    }
    (folder / "run.json").write_text(json.dumps(content))
    table.to_parquet(folder / "frame.parquet")
    return folder


def write_evaluation(folder: Path, groups: tuple[str, ...] = ("forget", "near", "text"), **changes: object) -> Path:
    """Of every group a quarter of 32 facts are known; what is measured of 8 texts is the same everywhere."""
    measures = {
        "recall": {"what": "greedy decoding gives the answer", "direction": "1 = known, 0 = not"},
        "text_loss": {"what": "general text", "direction": "0 = foreseen"},
    }
    rows = [(f"{group}/{fact}", group, fact % 4 == 0) for group in groups if group != "text" for fact in range(32)]
    names = [name for name, _, _ in rows]
    table = pd.DataFrame({"question": names, "fact": names, "role": [role for _, role, _ in rows]})
    if rows:
        table["recall"] = [float(known) for _, _, known in rows]
    texts = pd.DataFrame({"tokens": [10] * 8, "text_loss": [0.25] * 8} if "text" in groups else {"tokens": []})
    settings = {"options": 4, "seed": 0, "prompts": "held_out"}
    told = {"settings": settings, "model": "runs/npo/model", "before": "organism", "facts": {"name": "organism"}}
    about = told | {"measures": measures} | changes
    folder.mkdir(parents=True, exist_ok=True)
    content = {"kind": "evaluation", "settings": settings, "about": about, "versions": {}}
    (folder / "run.json").write_text(json.dumps(content))
    table.to_parquet(folder / "frame.parquet")
    texts.to_parquet(folder / "texts.parquet")
    return folder
