"""A study of nothing, whose jobs leave a mark each time they are done."""

from pathlib import Path

import pandas as pd


def square(job: str, folder: Path) -> dict[str, pd.DataFrame]:
    if job == "broken":
        raise ValueError("broken")
    folder.mkdir(parents=True, exist_ok=True)
    marks = folder / "marks"
    marks.write_text(marks.read_text() + "x" if marks.exists() else "x")
    number = int(job)
    return {"squares": pd.DataFrame({"number": [number], "square": [number**2]}), "extra": pd.DataFrame({"one": [1]})}
