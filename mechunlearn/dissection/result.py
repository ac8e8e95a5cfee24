"""What a dissection found: tidy frames, and how to read, draw, keep and open them again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ..checking import checked
from ..evaluation import resampled
from ..facts import PROMPTS
from ..runs import RunFolder, read_finished, read_frame
from ..showing import Shown, Table
from .metrics import PAPER_METRIC
from .peaks import strongest
from .plotting.maps import plot_positions
from .plotting.recovery import plot_recovery
from .summary import NEEDED, summarise_recovery

FRAMES: dict[str, dict[str, Any]] = {  # the frames of a dissection, the columns that each must have, what they hold
    "frame": NEEDED,
    "controls": {
        "control": str, "site": str, "metric": str, "expected": float | None, "measured": float | None,
        "tolerance": float | None, "passed": bool | None,
    },
    "facts": {
        "fact": str, "question": str, "prompt": str, "answer": str, "before_answer": str, "after_answer": str,
        "before_logprob": float, "after_logprob": float, "before_correct": bool, "after_correct": bool,
    },
    "answers": {
        "fact": str, "question": str, "site": str, "direction": str, "first_layer": int, "last_layer": int,
        "answer": str, "correct": bool,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Dissection(Shown):
    """Recovery of every fact at every site in every window.

    Attributes:
        frame: one row per question × site × window × metric: `fact, question` (the fact's id, and that of the
            phrasing it was asked in), `subject, site, kind, direction, first_layer, last_layer` (inclusive; −1 for
            sites outside the blocks), `position, token` (of layer × position maps), `metric, distance` (donor to
            patched), `baseline` (donor to recipient), `recovery` (1 − distance / baseline; NaN where the baseline is
            below the noise floor, i.e. not `defined`).
        controls: patches whose result is known beforehand: `control, site, metric, expected, measured, tolerance,
            passed`.
        facts: per question what either model says: `fact, question, subject, prompt, answer, before_answer,
            after_answer` (most probable token at each predicting position, the answer so far given),
            `before_logprob, after_logprob` (of the answer, nats), `before_correct, after_correct`, and of either the
            `…_probability` of an answer token (geometric mean) and the right tokens' mean `…_rank` (1 = top).
        answers: what the recipient says to each question under every patch, likewise read: `fact, question, subject,
            site, direction, first_layer, last_layer, answer, correct, probability, rank`.
        about: models, settings, noise floor, versions.
    """

    frame: pd.DataFrame
    controls: pd.DataFrame
    facts: pd.DataFrame
    answers: pd.DataFrame
    about: dict[str, Any]

    @property
    def frames(self) -> dict[str, pd.DataFrame]:
        """All of them by name, as they are kept."""
        return {name: getattr(self, name) for name in FRAMES}

    @checked
    def summary(self, *, seed: int | None = None, **options: Any) -> pd.DataFrame:
        """Mean of ratios (the paper's score) and ratio of means per site and window: see `summarise_recovery`."""
        found = summarise_recovery(self.frame, seed=self.about.get("seed", 0) if seed is None else seed, **options)
        return Table(found)

    @checked
    def plot(self, metric: str = PAPER_METRIC, **options: Any) -> go.Figure:
        """Recovery by window, one line a site; layer × position maps where the dissection has positions."""
        if self.frame["position"].notna().any():
            return plot_positions(self.frame, metric, **options)
        return plot_recovery(self, metric, **options)

    @checked
    def save(self, folder: str | Path) -> Path:
        """Write the frames and what made them into a folder.

        Raises:
            UserError: the folder holds something else, or cannot be written.
        """
        kept = RunFolder(folder, "dissection", self.about.get("settings", {}))
        kept.finish(self.about, **self.frames)
        return kept.path

    @classmethod
    @checked
    def load(cls, folder: str | Path) -> Dissection:
        """Open a saved dissection.

        Raises:
            UserError: the folder holds none, an unfinished one, or a broken file.
        """
        run = read_finished(folder, "dissection", "a dissection")
        frames = {name: read_frame(Path(folder) / f"{name}.parquet", needed) for name, needed in FRAMES.items()}
        return cls(about=run["about"], **frames)

    def __repr__(self) -> str:
        sites = ", ".join(dict.fromkeys(self.frame["site"].astype(str)))
        return f"Dissection({self.frame['fact'].nunique()} facts; {sites}; {len(self.frame)} rows)"

    def _told(self) -> tuple[str, pd.DataFrame]:
        summary, controls = self.summary(), self.controls["passed"].dropna()
        sentence = (
            f"Dissection of {self.about.get('before')} and {self.about.get('after')}: {self.frame['fact'].nunique()} "
            f"facts {PROMPTS[self.about.get('prompts', 'own')]}, "
            f"{self.frame['direction'].iloc[0]}; {int(controls.sum())} of {len(controls)} controls passed. "
            "Where most comes back at each site (squared difference of the logits, mean of ratios; 95 % intervals over "
            f"{resampled(summary)}):"
        ) + "".join(f"\nMind: {note}." for note in self.about.get("notes", ()))
        return sentence, strongest(summary, answers=self.answers)
