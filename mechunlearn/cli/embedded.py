"""`mechunlearn demo` and `mechunlearn organism build`: the embedded model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from .app import SeedOption, app, organism_app
from .inputs import show

# Enough to forget the facts in a minute. Kept facts and general text are held by their KL divergence from the model
# before, so firmly that the loss on general text rises by less than 3 %.
HELD = {"retain": "kl", "retain_weight": 10.0}
DEMO = {"steps": 100, "learning_rate": 2e-4, "batch_size": 16, "evaluate_every": 50}
EVERY = 2  # the demo asks every second fact to forget, which is plenty for narrow intervals


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for all of it; a second call reuses it.")] = Path("runs/demo"),
    seed: SeedOption = 0,
) -> None:
    """See it work on the embedded model.

    It forgets by two methods; both are dissected, and attacked beside the twin that never knew the facts; one report
    shows what happened.

    \b
    Example:
      mechunlearn demo
    """
    began = time.perf_counter()
    from .. import attacks, dissection, reporting
    from ..facts import Facts, organism_text
    from ..models import load
    from ..unlearning import NPO, GradientDifference, unlearn as make_forget

    before, never_knew, facts = load("organism"), load("organism:never-knew"), Facts.builtin("organism")
    texts = {"text": organism_text(), "retain_text": organism_text("train")}
    shown = []
    for method in (GradientDifference(**HELD, text_weight=5.0), NPO(**HELD, text_weight=8.0)):
        folder = out / method.name
        make_forget(before, method, facts.forget, facts.retain, seed=seed, run=folder, **texts, **DEMO)
        found = dissection.dissect(
            before,
            folder / "model",
            facts.forget[::EVERY],
            windows=["sliding:5", "single", "all"],
            seed=seed,
            run=folder / "dissection",
        )
        attacked = attacks.attack(
            folder / "model",
            facts,
            suite=[attacks.Relearn(epochs=3)],
            never_knew=never_knew,
            seed=seed,
            run=folder / "attacks",
        )
        shown.append((method.name, found, attacked))
    page = reporting.report(out)
    for name, found, attacked in shown:
        typer.echo(f"\n== {name}")
        show(found, dissection.PAPER_METRIC)
        typer.echo(f"\n{reporting.AttackWords.of(attacked.frame).headline}")
    typer.echo(f"\nThe report is {page} ({time.perf_counter() - began:.0f} s)")


@organism_app.command("build")
def build(
    out: Annotated[Path, typer.Option(help="A new folder for models, facts and texts.")] = Path("runs/organism"),
    seed: SeedOption = 0,
) -> None:
    """Make the embedded model and its never-knew twin again.

    From nothing: about a quarter of an hour on two cores.

    \b
    Example:
      mechunlearn organism build --out my-organism --seed 1
    """
    from .. import organism

    organism.build(out, seed=seed)
    typer.echo(f"Built in {out}. Load it with the path {out / 'organism'} in place of a model's name.")
