"""The page of `layered_unlearning.py`."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd
import plotly.express as px
import plotly.graph_objects as go
from studies import RESULTS, Tables, over_seeds

METHODS = {
    "npo": "NPO + KL",
    "rmu": "RMU",
    "gradient_difference": "gradient difference, KL",
    "cir": "CIR, soft collapse",
}
ARMS = (
    "plain",
    "plain, 4 stages",
    "layered 2",
    "layered 3",
    "layered 4",
    "layered 4, no fold retained",
    "layered 4, reversed",
)
SINGLE = {f"folds {fold}": fold for fold in range(4)}
FOUR = "layered 4"  # the arm that the picture of stages shows
# The stage that forgets each fold first, where that is not its own number.
STAGE = {"layered 2": (0, 0, 1, 1), "layered 3": (0, 0, 1, 2), "layered 4, reversed": (3, 2, 1, 0)}
SITES = ("everything", "mlp_keys", "value_vectors", "attention")


def write(tables: Tables, missing: int) -> None:
    """`layered_unlearning.md` and its pictures."""
    matrix = tables["matrix"].assign(fold=lambda rows: rows["fold"].astype(int))
    parts = [INTRODUCTION]
    if missing:
        parts.append(f"**In progress**, runs still to come: {missing}.\n")
    parts += ["## Before the attack\n", _costs(tables["runs"])]
    parts += ["\n## After it\n", SUMMARY, _regained(matrix)]
    _heatmaps(matrix, "npo").write_image(RESULTS / "layered_unlearning_matrix.png", scale=2)
    parts += [
        "\n## The relearning matrix\n",
        "![Recall of each fold after relearning another](layered_unlearning_matrix.png)\n",
    ]
    for name, title in METHODS.items():
        if (matrix["method"] == name).any():
            parts += [f"### {title}\n", _cells(matrix[matrix["method"] == name])]
    if "restored" in tables:
        restored = tables["restored"].assign(fold=lambda rows: rows["fold"].astype(int))
        parts += ["\n## The restoration matrix\n", RESTORED]
        if (restored["arm"] == FOUR).any():
            _restored_picture(restored).write_image(RESULTS / "layered_unlearning_restored.png", scale=2)
            parts += ["![Recall regained without one stage's change](layered_unlearning_restored.png)\n"]
        parts += [_restored(restored)]
    if "two_way" in tables:
        parts += [
            "\n## The attacked plain model, patched into the attacked layered one\n",
            TWO_WAY,
            _two_way(tables["two_way"]),
        ]
    parts += ["\n" + READING, FOOT]
    (RESULTS / "layered_unlearning.md").write_text("\n".join(parts), encoding="utf-8")


def _costs(runs: pd.DataFrame) -> str:
    """Every arm before the attack: what it forgot, and what that cost."""
    rows = [
        {
            "method": METHODS.get(str(name), "twin, never knew"),
            "arm": arm,
            "seeds": len(part),
            "steps": over_seeds(part["steps"], 0),
            "forget recall": over_seeds(part["forget_recall"]),
            "near": over_seeds(part["near_recall"]),
            "text KL": over_seeds(part["text_text_kl"], 3),
            "order": _order(name, arm),
        }
        for (name, arm), part in runs.groupby(["method", "arm"], sort=False)
    ]
    return pd.DataFrame(rows).sort_values("order").drop(columns="order").to_markdown(index=False)


def _regained(matrix: pd.DataFrame) -> str:
    """Every arm after the attack: recall of folds that were not relearned, before it, at the worst epoch, and the rise.

    Earlier and later is by the stage that forgot a fold first; pairs of one stage are neither. The plain method forgets
    all at once: its folds count as they do in four layers, for comparison.
    """
    matrix = matrix.assign(regained=matrix["worst"] - matrix["start"], source=matrix["trained"].map(SINGLE))
    rows = []
    for (name, arm), part in matrix.groupby(["method", "arm"], sort=False):
        one = part.dropna(subset="source")
        turns = dict(enumerate(STAGE.get(str(arm), (0, 1, 2, 3))))
        later = one["fold"].map(turns) - one["source"].map(turns)
        row = {"method": METHODS.get(str(name), "twin, never knew"), "arm": arm}
        for title, cells in (
            ("one, earlier ones", one[later < 0]),
            ("one, later ones", one[later > 0]),
            ("three, the fourth", part[part["source"].isna()]),
        ):
            means = cells.groupby("seed")[["start", "worst", "regained"]].mean()
            row[f"{title}: start"] = over_seeds(means["start"])
            row[f"{title}: worst"] = over_seeds(means["worst"])
            row[f"{title}: regained"] = f"**{over_seeds(means['regained'])}**"
        rows.append(row | {"order": _order(name, arm)})
    return pd.DataFrame(rows).sort_values("order").drop(columns="order").to_markdown(index=False)


def _order(name: object, arm: object) -> tuple[int, int]:
    return _place(name, METHODS), _place(arm, ARMS)


def _place(name: object, names: Iterable[str]) -> int:
    """Where a name stands in a list; what is not in it comes first."""
    return {known: place for place, known in enumerate(names)}.get(str(name), -1)


def _cells(matrix: pd.DataFrame) -> str:
    """Rows: arm and fold relearned; columns: fold asked."""
    one = matrix[matrix["trained"].isin(list(SINGLE))]
    table = one.groupby(["arm", "trained", "fold"])["worst"].apply(over_seeds).unstack().fillna("")
    table = table.loc[[arm for arm in ARMS if arm in table.index.get_level_values(0)]]
    table.columns = [f"fold {fold} asked" for fold in table.columns]
    return table.reset_index().rename(columns={"trained": "relearned"}).to_markdown(index=False)


def _restored(restored: pd.DataFrame) -> str:
    """Recall of each fold when the change of one stage, everywhere, is taken out; absolute rises with intervals."""
    end = restored[restored["stage"] == 0].set_index(["method", "arm", "seed", "fold"])["recall"]
    rest = restored[(restored["stage"] > 0) & (restored["site"] == "everything")]
    rise = rest.set_index(["method", "arm", "seed", "fold", "stage"])["recall"]
    rise = rise - end.reindex(rise.reset_index("stage", drop=True).index).to_numpy()
    table = rise.groupby(["method", "arm", "stage", "fold"]).apply(over_seeds).unstack()
    table.columns = [f"fold {fold}" for fold in table.columns]
    table = table.reset_index()
    return table.assign(method=table["method"].map(METHODS)).to_markdown(index=False)


def _two_way(table: pd.DataFrame) -> str:
    whole = table[(table["first_layer"] <= 0) & (table["last_layer"] >= 5)]
    found = whole.groupby(["method", "site"], observed=True)["ratio_of_means"].apply(over_seeds).unstack()
    recalls = table.groupby(["method", "seed"])[["recall_plain", "recall_layered"]].first().groupby("method")
    for column in ("recall_layered", "recall_plain"):
        found.insert(0, column.replace("_", ", "), recalls[column].apply(over_seeds))
    return found.rename(index=METHODS).reset_index().to_markdown(index=False)


def _heatmaps(matrix: pd.DataFrame, name: str) -> go.Figure:
    """One panel an arm: fold relearned down, fold asked across."""
    one = matrix[matrix["trained"].isin(list(SINGLE)) & matrix["method"].isin([name, "twin"])]
    one = one.assign(source=one["trained"].map(SINGLE), arm=one["arm"].where(one["method"] == name, "never knew"))
    arms = [arm for arm in ("never knew", *ARMS) if (one["arm"] == arm).any()]
    stack = np.full((len(arms), 4, 4), np.nan)
    for place, arm in enumerate(arms):
        means = one[one["arm"] == arm].groupby(["source", "fold"])["worst"].mean()
        for (source, fold), value in means.items():  # pyright: ignore[reportGeneralTypeIssues]
            stack[place, source, fold] = value
    figure = px.imshow(
        stack, facet_col=0, facet_col_wrap=4, zmin=0, zmax=1, color_continuous_scale="Reds", text_auto=".2f",  # pyright: ignore[reportArgumentType]
        labels={"x": "fold asked", "y": "fold relearned", "color": "recall"},
    )  # fmt: skip
    for note in figure.layout.annotations:  # pyright: ignore[reportAttributeAccessIssue]
        note.text = arms[int(note.text.split("=")[1])]
    title = f"{METHODS[name]}: recall of one fold after relearning another (worst epoch)"
    return figure.update_layout(width=1150, height=330 * -(-len(arms) // 4) + 60, title=title)


def _restored_picture(restored: pd.DataFrame) -> go.Figure:
    """Recall regained by fold when one stage's change is taken out, for the layered runs of four stages."""
    end = restored[restored["stage"] == 0].groupby(["method", "arm", "seed", "fold"])["recall"].mean()
    rest = restored[(restored["stage"] > 0) & (restored["arm"] == FOUR)].copy()
    keys = pd.MultiIndex.from_frame(rest[["method", "arm", "seed", "fold"]])
    rest["rise"] = rest["recall"].to_numpy() - end.reindex(keys).to_numpy()
    rest["what"] = rest["method"].map(METHODS)
    panels = [f"{what}<br>{site}" for what in dict.fromkeys(rest["what"]) for site in SITES]
    stack = np.full((len(panels), 4, 4), np.nan)
    for place, panel in enumerate(panels):
        what, site = panel.split("<br>")
        means = rest[(rest["what"] == what) & (rest["site"] == site)].groupby(["stage", "fold"])["rise"].mean()
        for (stage, fold), value in means.items():  # pyright: ignore[reportGeneralTypeIssues]
            stack[place, stage - 1, fold] = value
    figure = px.imshow(
        stack, facet_col=0, facet_col_wrap=4, facet_row_spacing=0.07, zmin=-1, zmax=1, text_auto=".2f",  # pyright: ignore[reportArgumentType]
        color_continuous_scale="RdBu_r", aspect="auto",
        y=[1, 2, 3, 4], labels={"x": "fold", "y": "stage taken out", "color": "recall regained"},
    )  # fmt: skip
    for note in figure.layout.annotations:  # pyright: ignore[reportAttributeAccessIssue]
        note.text = panels[int(note.text.split("=")[1])]
    title = "Layered, four stages: recall regained without one stage's change"
    return figure.update_layout(width=1150, height=230 * -(-len(panels) // 4) + 150, title=title, margin={"t": 110})


INTRODUCTION = """# Layered Unlearning in a language model

arXiv 2505.09500: stage i forgets folds 1…i and retains i+1…k, so that relearning a fold that was forgotten late should
not bring back those forgotten before it. Here: the organism's domain in four folds (80 facts each); budget KL 0.05,
near recall ≥ 90 %; a stage ends at 5 % recall of its newest fold, or after 100 steps (CIR: 160), which most do. Recall
is greedy, in two phrasings never trained. Mean over seeds [smallest, largest].
"""
SUMMARY = """AdamW 3e-4, all blocks, six epochs, on one fold or on three; asked are the folds that it did not see.
*Start* is their recall before, *worst* at the worst epoch (a maximum of noise too: compare with the twin's row),
*regained* the difference: what was never forgotten cannot come back. Earlier folds were forgotten in an earlier stage
than the one relearned.
"""
RESTORED = """θ_k − (θ_i − θ_{i−1}): what each stage added is taken out of the end model, everywhere or at one site, and
every fold is asked. Separate inhibitors would make it triangular: without stage i the folds up to i come back. In the
table: all parameters, rise of recall over the end model's.
"""
TWO_WAY = """Both relearned on fold 3, then asked for fold 0. Recovery of the answer's log-probability when all layers
of the site are taken from the attacked plain model: 1 = as that one, 0 = as the attacked layered one. "block": weights.
"""
READING = """## Reading

- **In NPO and gradient difference the stages protect what they forget first.** Relearning one fold, layered NPO
  regains 0.24 of the folds forgotten in earlier stages, the plain method 0.73, and the plain method run for as many
  steps 0.61, though it moves general text twice as far (KL 0.046, 0.022). For gradient difference it is 0.19, 0.61
  and 0.60. More layers protect more: with two, three and four NPO regains 0.43, 0.39 and 0.24, gradient difference
  0.46, 0.24 and 0.19, CIR 0.25, 0.15 and 0.14 (the last two: one seed for two and three). Fold 0 ends at 0.19 to 0.25
  under NPO, whichever fold is relearned (plain: 0.72 to 0.75); the twin, at 0.08.
- **In CIR it need not be the stages.** Four layers regain 0.14, plain CIR 0.38, and plain CIR run for as many steps
  0.16, later folds and those relearned from three others included (0.16 and 0.24 against 0.23 and 0.26 in layers). It
  moves general text further for it (KL 0.034, 0.018). Of all arms this one leaves least to an attacker; the twin
  regains 0.01 to 0.02.
- **RMU is protected by neither**: 0.78 in layers, 0.81 plain, 0.89 run on until its budget ends (180 steps).
- **It is the retained folds that do it.** Without them the first stage takes the other folds along (NPO is done after
  73 steps, and taking that stage's change out returns 0.55 to 0.70 of every fold), and relearning brings back 0.65
  and 0.84: about as much as after the plain method.
- **The order decides who is protected.** In reverse, fold 3 is forgotten first and ends at 0.08 to 0.16, where it is
  at 0.72 to 0.78 in order; fold 0 at 0.55 to 0.66.
- **One-way it is not quite.** Folds forgotten *later* than the relearned one regain more than earlier ones, as the
  paper has it (NPO 0.36 against 0.24, CIR 0.23 against 0.14), but less than in the plain method (0.70, 0.37). Much of
  this is recall that was never lost: in layered NPO and gradient difference later folds start at 0.30 and 0.58.
- **It costs.** Only 7 of 48 stages reach their 5 % within their steps (NPO 2, CIR 5); in the end layered NPO still
  answers 0.20 and gradient difference 0.42 of the forget facts before any attack (plain: 0.02 and 0.19), at higher KL
  and lower near recall. So the plain methods forget more at less cost, and layered ones keep forgotten what they
  forgot.
- **The restoration matrix is mostly diagonal, not triangular.** Taking stage i's change out brings back fold i (NPO
  0.35 to 0.60, gradient difference 0.23 to 0.72, CIR 0.61 to 0.95) and little of the folds that it also trained to
  stay forgotten; most so stage 4, which gives back fold 2 as well (0.20, 0.14, 0.14). In the plain method run in
  stages all lies in the first. So layers do build inhibitors of single folds. RMU's do not come apart: each stage's
  removal brings back parts of every fold, all of it in the value vectors, the only thing it trains. No single site
  holds an inhibitor: without one stage's keys, value vectors or attention alone NPO gives back 0.18 at most; CIR's
  keys a third to a half of it.
- **Patched into each other**, the attacked plain model's coefficients and attention carry fold 0 into the attacked
  layered model nearly whole (0.93 to 0.97): what reads the states was not unlearned, also where the model by itself
  stays silent.
"""
FOOT = """
Made by `python analyses/layered_unlearning.py`; frames: [runs](layered_unlearning_runs.parquet),
[matrix](layered_unlearning_matrix.parquet), [restored](layered_unlearning_restored.parquet),
[two-way](layered_unlearning_two_way.parquet).
"""
