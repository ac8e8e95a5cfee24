"""What belongs to single rows among a block's arguments is found out, whatever its shape."""

import pytest
import torch
from torch import nn

from mechunlearn.errors import UserError
from mechunlearn.models import hf
from mechunlearn.models.arguments import Rows, layout, select
from mechunlearn.models.forward import check_replay, record, resume, unembed

from ..architectures import NAMES, ODD
from ..pairs import before, rows

CPU = torch.device("cpu")


def plain(model, tokens):
    return hf(model)(input_ids=tokens.ids, attention_mask=tokens.attention, use_cache=False).logits[tokens.predicts]


@pytest.mark.parametrize("name", [*NAMES, *ODD])
@pytest.mark.parametrize("lengths", [(9,), (12, 7, 9, 11)], ids=["one fact", "as many facts as heads"])
@torch.no_grad()
def test_any_rows_in_any_order_are_the_models_own_pass(name, lengths):
    """Four rows, four heads; and one row, of which many are asked."""
    model, tokens = before(name), rows(lengths)
    order = torch.tensor([len(lengths) - 1, 0, 0, len(lengths) // 2, 0])
    mixed = tokens[order.tolist()]
    want = plain(model, mixed)
    trace = record(model, tokens)
    for layer in (0, 2):
        final = resume(model, trace, layer, trace.entries[layer][order], order)
        found = unembed(model, final[mixed.predicts])
        torch.testing.assert_close(found, want, rtol=1e-4, atol=1e-5 * float(want.abs().max()))
    assert check_replay(model, tokens) < 1e-4 * float(want.abs().max())


def arguments(of):
    """A run of one block that is called with `of(rows, padded)`."""
    return lambda ids, attention: [((), {"given": of(len(ids), bool((attention == 0).any()))})]


@pytest.mark.parametrize(
    ("of", "axis"),
    [
        (lambda n, _: torch.zeros(n, 1, 5), 0),
        (lambda n, _: torch.zeros(4, 1, 5), None),
        (lambda n, _: torch.zeros(4 * n, 1, 5), 0),
        (lambda n, _: torch.zeros(3, n, 5), 1),
        (lambda n, padded: torch.zeros(n if padded else 1, 1, 5, 5), 0),
        (lambda n, padded: torch.zeros(n, 1, 5, 5) if padded else None, 0),
    ],
)
def test_the_axis_of_rows_is_the_one_that_grows_with_them(of, axis):
    found = layout(nn.Linear(1, 1), arguments(of), CPU)
    assert found == {(0, (1, "given")): axis}


@pytest.mark.parametrize(
    ("of", "said"),
    [
        (lambda n, _: torch.zeros(n, n), r"given has no axis of rows of its own \(\(2, 2\) for two rows"),
        (lambda n, _: torch.zeros(n + 1, 4), r"given has no axis of rows of its own"),
        (lambda n, _: torch.zeros([1] * n), r"given changes its number of axes"),
        (lambda n, _: torch.zeros(1) if n == 3 else None, r"given.* is there for some numbers of rows only"),
    ],
)
def test_what_has_no_rows_of_its_own_is_named(of, said):
    with pytest.raises(UserError, match=said):
        layout(nn.Linear(1, 1), arguments(of), CPU)


def test_rows_take_their_part_of_an_axis_that_holds_more():
    """BLOOM: rows · heads."""
    value = torch.arange(6).reshape(6, 1)  # three rows of two
    found = Rows(torch.tensor([2, 0]), 3).of(value, 0)
    assert found[:, 0].tolist() == [4, 5, 0, 1]


def test_containers_are_looked_into_and_shared_tensors_selected_once():
    known = {(0, (1, "pair", 0)): 0, (0, (1, "pair", 1)): None, (0, (0, 0, "deep")): 0}
    shared = torch.tensor([1.0, 2.0])
    done = {}
    given = (({"deep": shared},), {"pair": (shared, torch.ones(4)), "flag": True})
    (found,), named = select(given, 0, known, Rows(torch.tensor([1, 1]), 2), done)
    assert found["deep"].tolist() == [2, 2]
    assert named["pair"][0] is found["deep"]
    assert named["pair"][1].tolist() == [1, 1, 1, 1]
    assert named["flag"] is True


def test_an_argument_that_short_batches_do_not_show_is_named():
    with pytest.raises(UserError, match=r"block 0 is called with late, which short batches do not show"):
        select(((), {"late": torch.ones(2)}), 0, {}, Rows(torch.tensor([0]), 2), {})


def test_the_replay_check_finds_rows_that_are_mixed_up(monkeypatch):
    """A row that gets the first row's part of a mask: right as long as nobody changes the order."""
    model = before("llama")
    assert check_replay(model, rows()) < 1e-4
    monkeypatch.setattr(Rows, "of", lambda self, value, axis: value.index_select(axis, self.facts * 0))
    with pytest.raises(UserError, match="gives other logits than the model itself"):
        check_replay(model, rows())
