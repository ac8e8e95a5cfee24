"""What belongs to single rows among a block's arguments is found out, whatever its shape."""

import pytest
import torch
import transformers
from torch import nn

from mechunlearn.errors import UserError
from mechunlearn.models import arguments as block_arguments, hf, load
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


@pytest.fixture
def sharing():
    """A tiny Gemma 4 whose last two blocks take keys and values that the first two left in an object."""
    config = transformers.Gemma4TextConfig(
        vocab_size=96, hidden_size=32, intermediate_size=48, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, global_head_dim=8, max_position_embeddings=64, sliding_window=16,
        layer_types=["sliding_attention", "full_attention"] * 2, num_kv_shared_layers=2,
        hidden_size_per_layer_input=8, vocab_size_per_layer_input=96, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.2) if parameter.dim() > 1 else parameter.add_(0.1 * torch.randn_like(parameter))
    return load(model, device="cpu")


def test_what_blocks_hand_on_to_one_another_is_named(sharing):
    with pytest.raises(UserError, match=r"called with shared_kv_states, a KVSharingDict.*not supported"):
        check_replay(sharing, rows())


def test_the_replay_check_finds_what_blocks_hand_on(sharing, monkeypatch):
    """Even where the object is passed on unseen: from the last block on, keys of another pass are still in it."""
    monkeypatch.setattr(block_arguments, "INERT", object)
    with pytest.raises(UserError, match="gives other logits than the model itself"):
        check_replay(sharing, rows())


def test_the_replay_check_takes_two_rows_where_all_are_of_one_length(monkeypatch):
    model, taken = before("llama"), []
    real = type(rows()).__getitem__
    monkeypatch.setattr(type(rows()), "__getitem__", lambda self, which: taken.append(which) or real(self, which))
    check_replay(model, rows((9, 9, 9)))
    assert taken[0] == [0, 2]
