"""Interrupts at every line, and what they leave: nothing."""

import sys

import pytest
import torch

from mechunlearn.models import hf, slots
from mechunlearn.models.forward import measuring, record
from mechunlearn.models.hooks import hooked
from mechunlearn.models.swapping import parameters_of
from mechunlearn.training import borrowed
from mechunlearn.undoing import as_found, put_back_leftovers, undone, unhooked

from .pairs import before, changed, rows

NAME = "blocks.0.mlp.hook_post"
WATCHED = ("mechunlearn/undoing.py", "models/hooks.py", "models/forward.py", "models/swapping.py", "contextlib.py",
           "autograd/grad_mode.py", "mechunlearn/training.py", "hook_points.py")  # fmt: skip


def interrupting(number):
    """Raises KeyboardInterrupt at the line of that number in the watched files, once."""
    seen = 0

    def at(frame, event, _):
        nonlocal seen
        if event == "line":
            seen += 1
            if seen == number:
                sys.settrace(None)
                raise KeyboardInterrupt
        return at

    return lambda frame, *_: at if frame.f_code.co_filename.endswith(WATCHED) else None


def state(model):
    """All that an interrupt may leave behind."""
    module = hf(model)
    parts = [*model.modules(), *module.modules()]
    return {
        "hooks": [len(part._forward_hooks) + len(part._forward_pre_hooks) for part in parts],
        "kept hooks": [len(getattr(part, "fwd_hooks", ())) for part in parts],
        "training": [part.training for part in parts],
        "parameters": [(p.data_ptr(), p.requires_grad, p.grad is None) for p in module.parameters()],
        "switches": (torch.is_grad_enabled(), torch.get_default_dtype(), torch._C._len_torch_function_stack()),
        "notes": len(undone.notes),
    }


def passes(model, donor, tokens):
    """What verbs do: hooks, flags, gradients, parameters of another model, blocks taken one by one."""
    own = slots(model)

    @as_found
    def verb():
        with measuring(model), hooked(model, [(NAME, lambda tensor, hook: None)]):
            record(model, tokens)
        with borrowed(hf(model)), parameters_of({slot.path: slot for slot in slots(donor)}, own):
            for parameter in hf(model).parameters():
                parameter.requires_grad_(False)
        with torch.device("meta"):
            torch.empty(2)

    return verb


def test_an_interrupt_at_any_line_leaves_nothing():
    model, tokens = before("llama"), rows()
    verb = passes(model, changed(model, lambda slot: slot.layer == 1), tokens)
    verb()  # what is found once is found
    whole, number, left = state(model), 0, {}
    while True:
        number += 1
        sys.settrace(interrupting(number))
        try:
            verb()
            break  # it was done before it came to that line
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        now = state(model)
        if now != whole:
            left[number] = [what for what in whole if now[what] != whole[what]]
            put_back_leftovers()
    assert number > 300
    assert not left


def test_leftovers_are_put_back_by_the_next_verb_and_by_nobody_earlier():
    done = []

    def holds():
        note = undone(lambda: done.append("outer"))
        note.__enter__()
        with undone(lambda: done.append("inner")):
            put_back_leftovers()
            assert not done  # both are in use

    holds()
    assert done == ["inner"]
    as_found(lambda: None)()
    assert done == ["inner", "outer"] and not undone.notes


def test_a_generator_that_stands_still_is_in_use_as_long_as_who_goes_through_it():
    done = []

    def numbers():
        with undone(lambda: done.append("put back")):
            yield from range(3)

    def goes():
        for number in numbers():
            put_back_leftovers()
            assert not done
            if number == 1:
                return

    going = goes()
    assert going is None
    put_back_leftovers()
    assert done[:1] == ["put back"]


def test_hooks_that_nobody_wrote_down_are_found():
    module = torch.nn.Linear(2, 2)
    kept = module.register_forward_hook(lambda *_: None)
    with unhooked([module]):
        module.register_forward_hook(lambda *_: None)
        module.register_forward_pre_hook(lambda *_: None, with_kwargs=True)
    assert list(module._forward_hooks) == [kept.id]
    assert not module._forward_pre_hooks and not module._forward_pre_hooks_with_kwargs


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_mode_that_is_on_does_not_reach_into_a_verb(mode):
    @as_found
    def trains():
        weight = torch.nn.Parameter(torch.ones(2))
        (weight**2).sum().backward()
        return weight.grad

    with mode():
        assert trains().tolist() == [2, 2]
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()


def test_a_verb_keeps_its_name_and_its_arguments():
    @as_found
    def verb(model, *, run=None):
        """What it does."""
        return model, run

    assert verb(1, run=2) == (1, 2)
    assert (verb.__name__, verb.__doc__) == ("verb", "What it does.")
