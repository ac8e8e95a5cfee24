"""The line before a run starts: its numbers are those of the run."""

import re

import pytest

from mechunlearn.models import load, slots
from mechunlearn.unlearning import DPO, NPO, CircuitBreakers, GradientAscent, unlearn
from mechunlearn.unlearning.loop import stage

from ..architectures import tiny
from .conftest import TEXT

QUICK = {"steps": 4, "batch_size": 3, "evaluate_every": 4, "learning_rate": 1e-4}


def said(monkeypatch, model, method, facts, **options) -> tuple[str, object]:
    lines: list[str] = []
    monkeypatch.setattr(stage.tqdm, "write", lambda line: lines.append(line))
    result = unlearn(model, method, facts.forget, facts.retain, **QUICK | options)
    assert len(lines) == 1
    return lines[0], result


def number(line: str, pattern: str) -> int:
    found = re.search(pattern, line)
    assert found is not None, line
    return int(found[1].replace(",", ""))


@pytest.mark.parametrize(
    ("method", "options", "rows"),
    [
        (NPO(), {}, 6),
        (NPO(), {"retain_text": TEXT}, 9),
        (DPO(), {"accumulation": 2}, 9),
        (GradientAscent(), {"retain_text": TEXT}, 3),
    ],
)
def test_rows_and_tokens_are_those_of_the_steps(knowing, facts, monkeypatch, method, options, rows):
    line, result = said(monkeypatch, knowing, method, facts, **options)
    assert line.startswith(f"{method.name}: each step sees ")
    assert number(line, r"sees ([\d,]+) rows") == rows
    assert number(line, r"about ([\d,]+) tokens") == pytest.approx(result.frame["tokens"].iloc[-1] / 4, abs=0.6)
    assert ("in 2 pieces" in line) == (options.get("accumulation") == 2)


def test_trained_parameters_are_counted(knowing, facts, monkeypatch):
    total = sum(slot.tensor.numel() for slot in slots(knowing))
    line, _ = said(monkeypatch, knowing, NPO(), facts)
    assert f"trains {total:,} of {total:,} parameters" in line
    line, _ = said(monkeypatch, knowing, NPO(), facts, trainable="value_vectors")
    assert f"trains {2 * 32 * 48:,} of {total:,} parameters" in line
    line, _ = said(monkeypatch, knowing, CircuitBreakers(lora_rank=2), facts)
    per_block = 2 * ((32 + 32) + 2 * (32 + 16) + (32 + 32) + 3 * (32 + 48))
    assert number(line, r"trains ([\d,]+) of") in (per_block, 2 * per_block)


def test_parts_of_a_model_that_it_does_not_read_are_not_counted(knowing, facts, monkeypatch):
    model = load(tiny("phi3"), device="cpu", tokenizer=knowing.tokenizer)
    fused = load(tiny("llama"), device="cpu", tokenizer=knowing.tokenizer)
    line, _ = said(monkeypatch, model, NPO(), facts, steps=1)
    assert number(line, r"of ([\d,]+) parameters") == sum(slot.tensor.numel() for slot in slots(model))
    assert "MiB of memory" in line
    assert len(list(slots(fused)))


def test_checkpointing_and_pieces_take_less(knowing, facts, monkeypatch):
    def memory(**options) -> int:
        line, _ = said(monkeypatch, knowing, NPO(), facts, batch_size=400, steps=1, **options)
        return number(line, r"about ([\d,]+) MiB of memory")

    whole = memory()
    assert memory(checkpointing=True) < whole
    assert memory(accumulation=4) < whole / 2


def test_nothing_is_said_without_progress(knowing, facts, monkeypatch, capsys):
    lines: list[str] = []
    monkeypatch.setattr(stage.tqdm, "write", lambda line: lines.append(line))
    unlearn(knowing, NPO(), facts.forget, facts.retain, progress=False, **QUICK)
    assert not lines
    assert capsys.readouterr() == ("", "")
