"""Small models compute on one thread, unless somebody has chosen; a verb leaves the number as it was."""

from __future__ import annotations

import pytest
import torch

import mechunlearn as mu
from mechunlearn.models import threads
from mechunlearn.models.loading import load_to_ask
from mechunlearn.undoing import as_found


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch):
    """Two threads before, and nobody who has chosen."""
    for name in threads.CHOSEN:
        monkeypatch.delenv(name, raising=False)
    there = torch.get_num_threads()
    torch.set_num_threads(2)
    yield monkeypatch
    torch.set_num_threads(there)


@as_found
def in_a_verb() -> int:
    load_to_ask("organism")
    return torch.get_num_threads()


def test_a_small_model_computes_on_one_thread_and_the_number_is_put_back(two) -> None:
    assert in_a_verb() == 1
    assert torch.get_num_threads() == 2
    mu.load("organism")
    assert torch.get_num_threads() == 2


def test_whoever_has_chosen_is_obeyed_and_a_large_model_takes_what_there_is(two) -> None:
    two.setattr(threads, "SMALL", 1_000_000)
    assert in_a_verb() == 2
    two.undo()
    two.setenv("OMP_NUM_THREADS", "2")
    assert in_a_verb() == 2


def test_the_number_is_put_back_after_an_error_too(two) -> None:
    @as_found
    def fails() -> None:
        load_to_ask("organism")
        raise ValueError

    with pytest.raises(ValueError):
        fails()
    assert torch.get_num_threads() == 2
