"""What an evaluation found: tidy frames, and how to read, draw, keep and open them again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ..checking import checked
from ..facts import PROMPTS
from ..runs import RunFolder, read_finished, read_frame
from ..showing import Shown, Table
from .measures import MEASURES
from .plots import plot_measures
from .tables import NEEDED, summarise_measures


@dataclass(frozen=True)
class Evaluation(Shown):
    """What was measured of every question, and of every passage of general text.

    Attributes:
        frame: one row a question: `question`, `fact`, `subject, relation, domain, fold, role`, then one column a
            measure (`MEASURES`); NaN where a fact has too few distractors for it.
        texts: one row a passage: `tokens` (how many are predicted), then `text_loss` and `text_kl` in nats per token;
            no rows where no text was measured.
        about: settings (with `prompts`), models, facts, and what the measures are.
    """

    frame: pd.DataFrame
    texts: pd.DataFrame
    about: dict[str, Any]

    @checked
    def summary(self, by: Sequence[str] = ("role",), *, seed: int | None = None, **options: Any) -> pd.DataFrame:
        """Means group by group, with 95 % intervals: see `summarise_measures`, whose `options` these are.

        Args:
            by: what makes the groups: any of fact, subject, relation, domain, fold, role. Facts without a value are in
                the group "all".
            seed: of resamples; None takes that of the evaluation.

        Returns:
            One row a group and measure: the columns of `by` as text, then `measure`, `value` (a mean), `low`, `high`,
            `n`, `n_clusters` (what was resampled). Rows of general text have "text" in the first column, None in
            further ones, and count texts.

        Raises:
            UserError: `by` names no fields of facts; a value that is infinite.
        """
        drawn = self.about["settings"]["seed"] if seed is None else seed
        return Table(summarise_measures(self.frame, self.texts, by=by, seed=drawn, **options))

    @checked
    def plot(self, by: Sequence[str] = ("role",)) -> go.Figure:
        """Every measure in a row of its own, one colour a group."""
        return plot_measures(self.summary(by), PROMPTS[self.about["settings"]["prompts"]])

    @checked
    def save(self, folder: str | Path) -> Path:
        """Write the frames and what made them into a folder: `frame.parquet`, `texts.parquet`, `run.json`.

        Raises:
            UserError: the folder holds something else, or cannot be written.
        """
        kept = RunFolder(folder, "evaluation", self.about["settings"])
        kept.finish(self.about, frame=self.frame, texts=self.texts)
        return kept.path

    @classmethod
    @checked
    def load(cls, folder: str | Path) -> Evaluation:
        """Open a saved evaluation.

        Raises:
            UserError: the folder holds none, an unfinished one, or a broken file.
        """
        run = read_finished(folder, "evaluation", "an evaluation")
        frame = read_frame(Path(folder) / "frame.parquet", NEEDED)
        return cls(frame, read_frame(Path(folder) / "texts.parquet"), run["about"])

    def __repr__(self) -> str:
        return f"Evaluation({self._counted()}; {', '.join(self._measures())})" + "".join(
            f"\n{m}" for m in self._minds()
        )

    def _told(self) -> tuple[str, pd.DataFrame]:
        sentence = (
            f"Evaluation of {self.about['model']}: {self._counted()}; facts "
            f"{PROMPTS[self.about['settings']['prompts']]}. summary(by=…) groups otherwise, plot() draws it."
        )
        return "\n".join([sentence, *self._minds()]), self.summary()

    def _minds(self) -> list[str]:
        return [f"Mind: {note}." for note in self.about.get("notes", ())]

    def _counted(self) -> str:
        texts = f", {len(self.texts)} texts" if len(self.texts) else ""
        return f"{self.frame['fact'].nunique()} facts, {len(self.frame)} questions{texts}"

    def _measures(self) -> list[str]:
        return [name for name in MEASURES if name in self.frame or name in self.texts]
