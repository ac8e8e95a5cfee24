"""When memory does not suffice: steps in more pieces, evaluations in fewer rows."""

import logging
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from mechunlearn.errors import UserError
from mechunlearn.training import Phase, Settings
from mechunlearn.unlearning import NPO
from mechunlearn.unlearning.data.batches import Piece
from mechunlearn.unlearning.loop import evaluations, stage
from mechunlearn.unlearning.method import Routine
from mechunlearn.unlearning.step import Step

from .conftest import TEXT
from .stages import close, run
from .test_resume import digest


class Greedy(NPO):
    """Two updates a step, of which the second needs much memory; counts its steps as a method's own state."""

    limit = 3
    error = RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried …")

    @contextmanager
    def routine(self, model, start, parameters, settings, epoch):
        steps = torch.zeros(1)

        def forget(piece: Piece) -> dict[str, Tensor]:
            return {"loss": self.forget(Step(model, start, piece))}

        def retain(piece: Piece) -> dict[str, Tensor]:
            steps.add_(1)
            if len(piece.parts["retain"].tokens) > self.limit:
                raise self.error
            return {"loss": Step(model, start, piece).see("retain").cross_entropy}

        plain = Settings(settings.steps, 0.01, "sgd")
        phases = (Phase(forget, settings), Phase(retain, plain, name="retain_"))
        yield Routine(phases, state=lambda: {"steps": steps}, restore=lambda state: steps.copy_(state["steps"]))


class CudaGreedy(Greedy):
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")


class Impossible(Greedy):
    limit = 0


class Broken(Greedy):
    error = RuntimeError("shapes do not fit")


@pytest.mark.parametrize("method", [Greedy(), CudaGreedy()], ids=["cpu", "cuda"])
@pytest.mark.parametrize(("batch", "accumulation", "pieces"), [(8, 1, 4), (8, 2, 4), (7, 3, 6), (5, 1, 2)])
def test_out_of_memory_splits_the_step(knowing, facts, caplog, monkeypatch, method, batch, accumulation, pieces):
    monkeypatch.setattr(type(method), "limit", -(-batch // pieces))
    options = {"batch_size": batch, "accumulation": accumulation, "text": TEXT}
    with caplog.at_level(logging.WARNING):
        split = run(knowing, facts, method, **options)
    assert f"out of memory: from step 0 on, each step is split into {pieces} pieces" in caplog.text
    monkeypatch.setattr(type(method), "limit", 100)
    whole = run(knowing, facts, method, **options)
    close(split.model, whole.model, rtol=1e-3, atol=2e-5)
    assert split.frame["tokens"].tolist() == whole.frame["tokens"].tolist()
    assert split.frame["step"].tolist() == whole.frame["step"].tolist()
    assert split.frame["loss"].tolist()[1:] == pytest.approx(whole.frame["loss"].tolist()[1:], rel=1e-3)


def test_out_of_memory_in_the_middle_goes_on_from_the_last_evaluation(knowing, facts, monkeypatch, caplog):
    whole = run(knowing, facts, NPO(), steps=6)
    original, count = stage.Trainer._update, 0

    def update(self, place, pieces):
        nonlocal count
        count += 1
        if count == 4:
            original(self, place, pieces)  # the weights have moved, which must not be seen
            raise torch.OutOfMemoryError("out of memory")
        return original(self, place, pieces)

    monkeypatch.setattr(stage.Trainer, "_update", update)
    with caplog.at_level(logging.WARNING):
        result = run(knowing, facts, NPO(), steps=6)
    assert "from step 2 on, each step is split into 2 pieces" in caplog.text
    close(result.model, whole.model, rtol=1e-3, atol=2e-5)
    assert count == 6 + 2


def test_memory_that_never_suffices_is_an_error(knowing, facts):
    with pytest.raises(UserError, match="out of memory even with one row of each kind at a time: train fewer"):
        run(knowing, facts, Impossible())
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        run(knowing, facts, Broken())


def test_evaluation_takes_fewer_rows_where_memory_does_not_suffice(knowing, facts, monkeypatch, caplog):
    whole = run(knowing, facts, text=TEXT)
    original = evaluations.score_answers

    def score(model, tokens, size):
        if size > 4:
            raise torch.OutOfMemoryError("out of memory")
        return original(model, tokens, size)

    monkeypatch.setattr(evaluations, "score_answers", score)
    result = run(knowing, facts, text=TEXT)
    assert "evaluating 4 rows at a time" in caplog.text
    assert digest(result.model) == digest(whole.model)
    columns = [name for name in whole.frame if name != "seconds"]
    for name in columns:
        assert result.frame[name].tolist() == pytest.approx(whole.frame[name].tolist(), abs=1e-5, nan_ok=True)
