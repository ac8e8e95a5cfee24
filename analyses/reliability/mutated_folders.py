"""Run folders in which one thing was changed: do `report` and `load` tell what is wrong, or work?

    python analyses/reliability/mutated_folders.py [--draws N] [--seed N] [--only SUBSTRING] [--list] [--json PATH]

A finished run of each kind is made once on the organism. Every case copies one, changes one thing by its own draw, and
then (a) writes the report, by `mechunlearn.report` and by the command line, and (b) opens it by its class, summarises
and draws it. Each must work (a whole page, a figure) or raise `UserError`, within 20 s, without a change to the folder
but the page itself. What a run wrote is guarded by digests, so most cases change a folder as an older version left it,
which has none ("bare"); the others leave them ("kept").
"""

from __future__ import annotations

import contextlib
import io
import random
import shutil
from pathlib import Path
from typing import Any

from mutations import CHANGES, SHARED, rewrite
from trying import differing, options, session, short, tree, tried

import mechunlearn as mu
from mechunlearn.cli import app

FOUND = mu.Facts.builtin("organism")
FOLDED = FOUND.with_items([*FOUND.where(role="forget", fold=1)[:3], *FOUND.where(role="forget", fold=2)[:3]])
NEAR = FOUND.near[:4]
CLASSES: dict[str, Any] = {
    "dissection": mu.Dissection, "positions": mu.Dissection, "unlearning": mu.Unlearning, "layered": mu.Unlearning,
    "attacks": mu.Attacks, "relearning": mu.Attacks, "evaluation": mu.Evaluation,
}  # fmt: skip
PAGE = "report.html"


def make(shared: Path) -> None:
    """One finished run of each kind."""
    before, twin = mu.load("organism"), mu.load("organism:never-knew")
    text, quiet = mu.organism_text()[:3], dict[str, Any](progress=False)
    short_run: dict[str, Any] = {"steps": 2, "batch_size": 4, "evaluate_every": 1, "text": text, **quiet}
    found = mu.unlearn(before, mu.NPO(), FOLDED, NEAR, run=shared / "unlearning", budget=mu.Budget(kl=5.0), **short_run)
    layered = mu.Layered(method=mu.NPO(), folds=2)
    mu.unlearn(before, layered, FOLDED, NEAR, run=shared / "layered", **short_run)
    sites = ["mlp_coefficients", "value_vectors"]
    mu.dissect(before, found.model, FOLDED, sites=sites, windows="sliding:3,all", run=shared / "dissection", **quiet)
    each: dict[str, Any] = {"sites": "residual", "windows": "single", "positions": "each", **quiet}
    mu.dissect(before, found.model, FOLDED[:3], run=shared / "positions", **each)
    facts = FOLDED.with_items([*FOLDED, *NEAR])
    suite = [mu.Relearn(epochs=1), mu.Prompts(), mu.Quantise()]
    mu.attack(found.model, facts, suite=suite, before=before, never_knew=twin, run=shared / "attacks", **quiet)
    asked: dict[str, Any] = {"settings": mu.Relearn(epochs=2), "never_knew": twin, **quiet}
    mu.relearn(found.model, FOLDED[:3], FOLDED[3:], run=shared / "relearning", **asked)
    asked = {"before": before, "text": text, "letters": False, "max_new_tokens": 4, **quiet}
    mu.evaluate(found.model, facts, run=shared / "evaluation", **asked)


def cases(draws: int, seed: int) -> list[str]:
    return [
        f"{kind}/{how}/{'kept' if number % 4 == 3 else 'bare'}/{seed + number}"
        for kind in CLASSES
        for how, (_, share) in CHANGES.items()
        if how not in ("model", "stage") or kind in ("unlearning", "layered")
        for number in range(max(1, round(draws * share)))
    ]


# --- one case


def ready(shared: Path) -> Path:
    SHARED.append(shared)
    return shared


def by_line(folder: Path) -> str:
    """What `mechunlearn report` says where it refuses; empty where it wrote the page."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            app(["report", str(folder)], prog_name="mechunlearn")
            code: Any = 0
        except SystemExit as end:
            code = end.code or 0
    lines = [line for line in said.getvalue().splitlines() if line.startswith("mechunlearn: ")]
    if code == 0:
        return ""
    if code != 2 or len(lines) != 1:
        raise RuntimeError(f"exit code {code}, {len(lines)} lines: {said.getvalue()[-300:]}")
    return lines[0]


def opened(kind: str, folder: Path) -> str:
    result = CLASSES[kind].load(folder)
    result.summary()
    result.plot().to_json()
    return ""


def answer(shared: Path, name: str) -> tuple[str, str]:
    """Change a copy, and read it in three ways."""
    kind, how, seal, number = name.split("/")
    folder = Path("run").absolute()
    shutil.copytree(shared / kind, folder)
    if seal == "bare":
        rewrite(folder, lambda held: [held.pop(name, None) for name in ("digest", "files")])
    told = CHANGES[how][0](folder, random.Random(f"{kind} {how} {number}"))
    was, wrong = tree(folder), []
    for way, call in (
        ("report", lambda: mu.report(folder) and ""), ("line", lambda: by_line(folder)),
        ("load", lambda: opened(kind, folder)),
    ):  # fmt: skip
        ended, said, given = tried(call)
        page, refused = folder / PAGE, ended == "refused" or bool(given)
        if ended not in ("returned", "refused"):
            wrong.append((ended, f"{way}: {said}"))
        if (
            way != "load"
            and ended == "returned"
            and not refused
            and not page.read_text("utf-8").rstrip().endswith("</html>")
        ):
            wrong.append(("defect", f"{way}: the page is not whole"))
        if page.exists() and (refused or way == "load" or ended == "defect"):
            wrong.append(("left", f"{way}: a page was left"))
        page.unlink(missing_ok=True)
        if odd := differing(was, tree(folder)):
            wrong.append(("left", f"{way}: {odd}"))
        if refused and not 12 <= len(said or given) <= 1500:
            wrong.append(("poor", f"{way}: {len(said or given)} characters: {short(said or given, 200)}"))
    return (wrong[0][0], f"[{told}] " + " || ".join(said for _, said in wrong)) if wrong else ("well", told)


if __name__ == "__main__":
    parser = options(__doc__)
    parser.add_argument("--draws", type=int, default=3, help="draws of each change of each kind")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    session(given, cases(given.draws, given.seed), ready, answer, make)
