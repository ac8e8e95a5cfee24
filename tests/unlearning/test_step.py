"""What a step sees of real models, and every loss through it in double precision."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import GPT2Config, GPT2LMHeadModel

from mechunlearn.errors import UserError
from mechunlearn.models import hf, load
from mechunlearn.unlearning.data.batches import Part, Piece, Sources
from mechunlearn.unlearning.step import Step, look

from ..architectures import LAYERS as DEPTH, NAMES, tiny
from . import formulas, worlds
from .formulas import LOSSES
from .worlds import HOOKS, LAYERS, ROWS, VOCABULARY, WIDTH, Outputs, World, random_rows, random_world

every_loss = pytest.mark.parametrize("name", LOSSES)
RESIDUALS = tuple(f"blocks.{layer}.hook_resid_post" for layer in range(DEPTH))


def gpt2(seed: int) -> GPT2LMHeadModel:
    """GPT-2, since all of it computes in double: Llama's norms round to single precision on the way."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=LAYERS, n_head=2, n_positions=32, n_inner=12,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    config.architectures = ["GPT2LMHeadModel"]
    model = GPT2LMHeadModel(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, dtype=torch.float64))
    return model


@contextmanager
def recorded(model: GPT2LMHeadModel) -> Iterator[dict[str, torch.Tensor]]:
    """What blocks and MLPs give, by plain forward hooks of torch."""
    saved: dict[str, torch.Tensor] = {}

    def keep(name: str):
        def save(module, inputs, output):
            saved[name] = output if isinstance(output, torch.Tensor) else output[0]

        return save

    handles = []
    for layer in range(LAYERS):
        block = model.get_submodule(f"transformer.h.{layer}")
        handles.append(block.register_forward_hook(keep(f"blocks.{layer}.hook_resid_post")))
        handles.append(block.get_submodule("mlp").register_forward_hook(keep(f"blocks.{layer}.hook_mlp_out")))
    yield saved
    for handle in handles:
        handle.remove()


@torch.no_grad()
def outputs(model: GPT2LMHeadModel, part: Part) -> Outputs:
    with recorded(model) as saved:
        logits = model(input_ids=part.tokens.ids, attention_mask=part.tokens.attention).logits
    return Outputs(logits, {hook: saved[hook] for hook in HOOKS})


@pytest.fixture(scope="module")
def plain() -> tuple[GPT2LMHeadModel, GPT2LMHeadModel]:
    """A model, and another one to start from."""
    return gpt2(0), gpt2(1)


@pytest.fixture(scope="module")
def bridges(plain) -> tuple[TransformerBridge, TransformerBridge]:
    model, start = (load(copy.deepcopy(model), dtype="float64") for model in plain)
    return model, start


def step_of(bridges: tuple[TransformerBridge, TransformerBridge], piece: Piece, seed: int = 0) -> Step:
    model, start = bridges
    return Step(model, start, piece, seed)


@pytest.fixture(scope="module")
def world(plain) -> World:
    """All that the two models give for some rows."""
    made = random_world(11)
    parts = made.pieces()[0].parts
    now, before = ({kind: outputs(model, part) for kind, part in parts.items()} for model in plain)

    def known(kind: str):
        rows = made.rows(kind)
        return replace(rows, start_nll=worlds.start_nll(rows.tokens.trim(), before[kind].logits))

    sources = replace(made.sources, forget=known("forget"), alternative=known("alternative"))
    return World(sources, now, before)


def part_of(name: str) -> Part:
    """Rows for the architectures of the suite, whose vocabulary is larger."""
    generator = torch.Generator().manual_seed(3)
    rows = random_rows(generator)
    return World(Sources(rows), {"forget": Outputs(torch.empty(0), {})}, {}).pieces()[0].parts["forget"]


@pytest.mark.parametrize("name", NAMES)
def test_sees_what_a_whole_forward_pass_gives_on_every_architecture(name):
    model, part = load(tiny(name)), part_of(name)
    tokens = part.tokens
    logits, cache = model.run_with_cache(tokens.ids, attention_mask=tokens.attention)
    hooks = (*RESIDUALS, f"blocks.{DEPTH - 1}.hook_mlp_out")
    seen = look(model, part, hooks)
    torch.testing.assert_close(seen.scored, logits[tokens.predicts])
    expected = torch.nn.functional.cross_entropy(logits[tokens.predicts], tokens.targets, reduction="none")
    torch.testing.assert_close(seen.token_nll, expected)
    for hook in hooks:
        torch.testing.assert_close(seen.states[hook][part.valid], cache[hook][part.valid])
        torch.testing.assert_close(look(model, part, [hook], logits=False).states[hook], seen.states[hook])


def test_sums_and_lengths_are_those_of_the_answers(bridges, world):
    part = world.pieces()[0].parts["forget"]
    seen = look(bridges[0], part)
    for row in range(ROWS):
        total, count = formulas.summed(world, "forget", row)
        assert seen.nll[row].item() == pytest.approx(total, rel=1e-10)
        assert seen.lengths[row].item() == count
    assert torch.equal(seen.rows, part.tokens.predicts.nonzero()[:, 0])


@pytest.mark.parametrize(
    ("hook", "untouched"), [("blocks.1.hook_resid_post", [2, 3]), ("blocks.0.hook_mlp_out", [1, 2, 3])]
)
def test_a_pass_for_states_ends_at_the_deepest(bridges, hook, untouched):
    model, part = bridges[0], part_of("")
    visited = []
    handles = [
        model.blocks[layer].register_forward_pre_hook(lambda *_, layer=layer: visited.append(layer))
        for layer in range(LAYERS)
    ]
    look(model, part, [hook], logits=False)
    for handle in handles:
        handle.remove()
    assert set(range(LAYERS)) - set(visited) == set(untouched)


def test_a_pass_for_states_alone_has_no_logits(bridges):
    seen = look(bridges[0], part_of(""), ["blocks.3.hook_resid_post"], logits=False)
    assert seen.logits is None


def test_leaves_no_hook_behind(bridges):
    model, part = bridges[0], part_of("")
    point = model.get_hook_point("blocks.1.hook_resid_post")
    assert point is not None
    count = len(point.fwd_hooks)
    look(model, part, ["blocks.1.hook_resid_post"], logits=False)
    look(model, part, ["blocks.1.hook_resid_post"])
    assert len(point.fwd_hooks) == count


def test_a_hook_that_does_not_exist_is_named(bridges):
    with pytest.raises(UserError, match=r"GPT2LMHeadModel has no hook blocks\.9\.hook_mlp_out"):
        look(bridges[0], part_of(""), ["blocks.9.hook_mlp_out"])


def test_a_hook_that_stays_silent_is_named():
    """In a parallel block there is nothing between attention and MLP."""
    with pytest.raises(UserError, match=r"hook_resid_mid .*GPTNeoXForCausalLM|GPTNeoXForCausalLM .*hook_resid_mid"):
        look(load(tiny("neox")), part_of(""), ["blocks.0.hook_resid_mid"])


@pytest.mark.parametrize("logits", [True, False])
def test_the_model_has_gradients_and_the_start_model_none(bridges, world, logits):
    step = step_of(bridges, world.pieces()[0])
    hook = "blocks.1.hook_resid_post"
    seen, start = step.see("forget", [hook], logits), step.start("forget", [hook], logits)
    assert seen.states[hook].requires_grad
    assert not start.states[hook].requires_grad
    assert not logits or (seen.scored.requires_grad and not start.scored.requires_grad)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_states_and_logits_are_in_single_precision_at_least(dtype):
    seen = look(load(tiny("llama"), dtype=dtype), part_of(""), ["blocks.1.hook_mlp_out"])
    assert seen.scored.dtype == seen.states["blocks.1.hook_mlp_out"].dtype == torch.float32


def test_knows_the_model_and_the_kinds(bridges):
    made = random_world(0, text=False)
    step = step_of(bridges, made.pieces(progress=0.3)[0], seed=5)
    assert (step.n_layers, step.d_model, step.progress, step.seed) == (LAYERS, WIDTH, 0.3, 5)
    assert [kind for kind in worlds.KINDS if step.has(kind)] == ["forget", "alternative", "retain"]


@every_loss
def test_every_loss_in_double_precision_is_its_formula(bridges, world, name):
    method = LOSSES[name]
    found = method.loss(step_of(bridges, world.pieces(progress=0.5)[0], seed=2))
    expected = formulas.written_out(method, world, 0.5, seed=2)
    assert {part: value.item() for part, value in found.items()} == {
        part: pytest.approx(value, rel=1e-9) for part, value in expected.items()
    }


def gradients(bridges, name: str, pieces: list[Piece]) -> dict[str, torch.Tensor]:
    model = hf(bridges[0])
    model.zero_grad()
    for piece in pieces:
        (LOSSES[name].loss(step_of(bridges, piece))["loss"] / len(pieces)).backward()
    found = {path: parameter.grad.clone() for path, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    return found


def same(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert expected
    assert found.keys() == expected.keys()
    size = max(gradient.abs().max() for gradient in expected.values())
    for path, gradient in expected.items():
        torch.testing.assert_close(found[path], gradient, rtol=1e-8, atol=1e-11 * float(size))


@every_loss
def test_accumulated_gradients_are_those_of_the_whole_step(bridges, world, name):
    whole = gradients(bridges, name, world.pieces(progress=0.5))
    same(gradients(bridges, name, world.pieces(count=4, progress=0.5)), whole)  # of 2, 2, 1 and 1 rows


@every_loss
def test_gradients_do_not_depend_on_padding(bridges, world, name):
    piece = world.pieces(progress=0.5)[0]
    wide = worlds.padded(piece, 3)

    def readable(part: Part) -> Part:  # ids that the embedding has, whatever they are
        tokens = part.tokens
        noise = torch.arange(tokens.ids.numel()).reshape(tokens.ids.shape) % VOCABULARY
        return replace(part, tokens=replace(tokens, ids=torch.where(tokens.attention.bool(), tokens.ids, noise)))

    wide = replace(wide, parts={kind: readable(part) for kind, part in wide.parts.items()})
    same(gradients(bridges, name, [wide]), gradients(bridges, name, [piece]))
