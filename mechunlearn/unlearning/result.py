"""What unlearning leaves: the model, the course of the run, and how to read, draw, keep and open them again."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from plotly.graph_objects import Figure
from transformer_lens.model_bridge import TransformerBridge

from ..checking import checked
from ..errors import UserError, check_whole
from ..facts import PROMPTS
from ..frames import check_frame
from ..models import load, save
from ..runs import RunFolder, check_files, read_finished, read_frame
from ..showing import Shown, Table
from .plot import plot
from .settings import kept_row

NEEDED: dict[str, Any] = {  # columns of a run's frame, and what they hold
    "stage": int, "step": int, "inside": bool, "scale": float, "forget_recall": float,
}  # fmt: skip


@dataclass(frozen=True)
class Unlearning(Shown):
    """A model that has unlearned, and how it came to.

    Attributes:
        model: the model after; a new one.
        frame: one row per evaluation: `stage` and `step` (of all stages together); `loss` and its parts `loss_forget`,
            `loss_retain`, `loss_text` (means over the steps since the row before; NaN at step 0); `forget_recall`,
            `forget_probability` and the same for near, far, retain, and recall for every `fold_…` of a layered run;
            `text_loss`, `text_kl`, `text_entropy` (nats per token); `inside` the budget or not; `scale` of the step
            size; `seconds` since the start; `tokens` trained on so far. Retain facts are grouped by role, those
            without one as "retain"; a probability is that of an answer token.
        about: `settings` (everything that decides the result), `stopped` (the reason why it ended) and `step` (that of
            the model, where the run went back before the last row); `measured_settings` that the method took from the
            model before (RMU's `steering`); `remaining`: where more than a fifth is
            still answered (`remaining.py`), how much, and what to try.
        stages: the models at the end of each stage, or their checkpoints: what a layered run has to dissect.
    """

    model: TransformerBridge
    frame: pd.DataFrame
    about: dict[str, Any]
    stages: tuple[TransformerBridge | Path, ...]

    @checked
    def summary(self) -> pd.DataFrame:
        """What was measured of the model before and of the model after: recall, and general text where there was some.

        One row a model: `model` ("before", "after"), `step`, then columns of `frame`.
        """
        check_frame("the frame of this run", self.frame, NEEDED)
        names = [str(name) for name in self.frame]
        names = [name for name in names if name.endswith("_recall") and not name.startswith("fold_")]
        names += [name for name in ("text_loss", "text_kl") if name in self.frame]
        ends = pd.DataFrame([self.frame.iloc[0], kept_row(self.frame, self.about)])
        ends = ends.assign(model=["before", "after"])[["model", "step", *names]]
        return Table(ends.infer_objects().reset_index(drop=True))

    @checked
    def plot(self) -> Figure:
        """Recall and disruption over the steps."""
        return plot(check_frame("the frame of this run", self.frame, NEEDED), self.about)

    @checked
    def save(self, folder: str | Path) -> Path:
        """Write the run as a run folder: `run.json`, `frame.parquet`, the checkpoints `model/` and `stages/1/model/`, …

        Raises:
            UserError: the folder holds something else, or cannot be written.
        """
        kept = RunFolder(folder, "unlearning", self.about["settings"])
        save(self.model, cleared(kept.path / "model"))
        layered = len(self.stages) if self._layered else 0
        for place, stage in enumerate(self.stages[:layered], start=1):
            target = kept.path / "stages" / str(place) / "model"
            if not (isinstance(stage, Path) and target.exists() and target.samefile(stage)):
                save(load(stage), cleared(target))
        kept.finish(self.about | {"stages": layered}, ("model",), frame=self.frame)
        return kept.path

    @classmethod
    @checked
    def load(
        cls, folder: str | Path, *, device: str | torch.device | None = None, dtype: str | torch.dtype | None = None
    ) -> Unlearning:
        """Open a saved or finished run; the model as `mechunlearn.load` opens a checkpoint.

        Raises:
            UserError: the folder holds none, an unfinished one, or a broken file.
        """
        run = read_finished(folder, "unlearning", "of unlearning")
        check_files(folder, run)
        return opened(Path(folder), run["about"], device=device, dtype=dtype)

    @property
    def _layered(self) -> bool:
        return str(self.about["settings"]["method"]).startswith("layered_")

    def __repr__(self) -> str:
        left = "; " + self.about["remaining"].partition(":")[0] if "remaining" in self.about else ""
        told = f"{self.about['step']} steps; {self.about['stopped']}{left}"
        return f"Unlearning({self.about['settings']['method']}; {told})"

    def _told(self) -> tuple[str, pd.DataFrame]:
        settings = self.about["settings"]
        sentence = (
            f"Unlearned by {settings['method']}, {self.about['step']} steps: {self.about['stopped']}; facts "
            f"{PROMPTS[settings['prompts']]}. plot() draws the way."
        )
        if "remaining" in self.about:
            sentence += f" But {self.about['remaining']}."
        return sentence, self.summary()


def cleared(folder: Path) -> Path:
    """An interrupted run may have saved its model without coming to say so."""
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def opened(
    folder: Path, about: dict[str, Any], *, device: str | torch.device | None, dtype: str | torch.dtype | None
) -> Unlearning:
    """What a finished run folder holds, whose files are known to be as they were written."""
    count = about.pop("stages", 0)
    check_whole(f"{folder / 'run.json'}: stages", count, 0)
    stages = [folder / "stages" / str(place) / "model" for place in range(1, count + 1)] or [folder / "model"]
    frame = read_frame(folder / "frame.parquet", NEEDED)
    _check_told(folder / "run.json", about, frame)
    model = load(folder / "model", device=device, dtype=dtype)
    model.cfg.model_name = about.get("name") or model.cfg.model_name
    return Unlearning(model, frame, about, tuple(stages))


def _check_told(file: Path, about: dict[str, Any], frame: pd.DataFrame) -> None:
    """Raises UserError: what a run says of itself is not what a run says, or not of this frame."""
    settings: Any = about.get("settings")
    told = settings if isinstance(settings, dict) else {}
    if not isinstance(told.get("method"), str) or str(told.get("prompts")) not in PROMPTS:
        raise UserError(
            f"{file}: settings lack the method or the prompts; was it changed, or is it of another version?"
        )
    step = about.get("step")
    if not isinstance(about.get("stopped"), str) or step not in frame["step"].tolist():
        raise UserError(
            f"{file}: stopped and step ({step!r:.60}) do not say how this frame's run ended; was it changed?"
        )
