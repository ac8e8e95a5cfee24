"""Some hundreds of kinds of bad input, given to the public Python API one by one: is each refused well?

    python analyses/reliability/bad_calls.py [--only SUBSTRING] [--list] [--json PATH]

Refused well is: `UserError`, of one sentence or so that names the argument or the value, within 20 s; no file made or
changed, no run folder begun; and the models that were given, and torch's switches, are as they were. A case is an
argument of a call that is good without it (`bad_call_tables.py`), or a call of its own (`OTHERS`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bad_call_tables as tables
import torch
from bad_call_values import Of, State, make, ready
from torch import nn
from trying import LONGEST, differing, options, session, short, tree, tried

from mechunlearn.undoing import TABLES

# Other words by which a message may name an argument.
ALSO = {
    "before": ("model", "embedding"), "after": ("model", "embedding"), "model": ("weights", "embedding"),
    "source": ("model", "file", "weights", "embedding"), "never_knew": ("model", "never-knew"),
    **dict.fromkeys(("facts", "forget", "retain", "train", "test"), ("fact", "name a file")),
    "sites": ("site",), "positions": ("position",), "windows": ("window",), "width": ("sliding",), "items": ("fact",),
    "suite": ("attack",), "measures": ("measure",), "options": ("choose", "distractor"), "method": ("NPO",),
    "text": ("passage",), "retain_text": ("passage",), "role": ("role",), "frame": ("column",), "folder": ("run",),
    "values": ("budget", "folds", "layered", "outcomes"), "settings": ("npo",), "columns": ("field",), "texts": ("text",
        ),
    "name": ("built-in", "method", "site"), "frames": ("prompts:",), "strengths": ("steer:",), "trainable": ("site",),
    "max_new_tokens": ("new ones",), "out": ("another name", "written"), "context": ("tokens long",),
        "answers": ("answer",), "by": ("grouped",), "cluster": ("resampled",),
}  # fmt: skip
OF_MODELS = ("hook", "tokenizer", "logits", "compatibility", "chat template", "NaN", "adapters", "quantised", "meta",
             "transformers", "architecture", "checkpoint", "Llama", "n_layers", "Half", "float16",
                 "bfloat16")  # fmt: skip
MODELS = ("before", "after", "model", "source", "never_knew")


def cases() -> dict[str, tuple[str, str, Any]]:
    """(call, argument, value) of every case with a name of its own."""
    found: dict[str, tuple[str, str, Any]] = {}
    for call, argument, value in tables.all_rows():
        told = value.name if isinstance(value, Of) else short(repr(value), 40)
        name = f"{call}/{argument}/{told}"
        found[name if name not in found else f"{name}/{len(found)}"] = (call, argument, value)
    return found | {f"other/{name}": (name, "", None) for name in OTHERS}


# --- a state that nothing may be left in


def seen(models: Iterator[nn.Module] | list[nn.Module]) -> dict[str, Any]:
    """What could be left behind: hooks, flags, names and places of parameters, whether anything was written to them."""
    found: dict[str, Any] = {
        "gradients": torch.is_grad_enabled(), "dtype": torch.get_default_dtype(),
        "inference": torch.is_inference_mode_enabled(),
    }  # fmt: skip
    for number, model in enumerate(models):
        for name, module in model.named_modules():
            hooks = sum(len(getattr(module, table)) for table in TABLES)
            found[f"{number}.{name}"] = (id(module), module.training, hooks)
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            place = 0 if tensor.is_meta else tensor.data_ptr()
            found[f"{number}.{name} (tensor)"] = (
                id(tensor), place, tensor.dtype, tensor._version, tensor.requires_grad, tensor.grad is None,
            )  # fmt: skip
    return found


def modules_of(values: dict[str, Any], state: State) -> list[nn.Module]:
    given = [state.before, state.after, state.module, *values.values()]
    return [value for value in given if isinstance(value, nn.Module)]


def words(call: str, argument: str, value: Any) -> tuple[str, ...]:
    """Of which a message must hold one."""
    shown = (str(value)[:40],) if isinstance(value, str) and len(value) > 2 else ()
    models = OF_MODELS if argument in MODELS else ()
    return (argument, *ALSO.get(argument, ()), *shown, *models) if argument else call.split()[:1]  # type: ignore[return-value]


def answer(state: State, name: str) -> tuple[str, str]:
    """Give a call something bad."""
    call, argument, value = CASES[name]
    torch.set_grad_enabled(True)
    state.at = Path.cwd()
    if argument:
        function, good = tables.CALLS[call]
        values = good(state) | {argument: value.of(state) if isinstance(value, Of) else value}
        do: Callable[[], Any] = lambda: function(state)(**values)  # noqa: E731
    else:
        do, values = OTHERS[call](state), {}
    models, files = modules_of(values, state), {**tree(state.at), **tree(state.runs)}
    was = seen(models)
    kind, told, given = tried(do)
    left = differing(was, seen(models)) or differing(files, {**tree(state.at), **tree(state.runs)})
    if left:
        fresh = ready(state.shared)
        vars(state).update(vars(fresh))
    if kind == "returned":
        return "silent", f"gives {short(repr(given), 100)}{'; ' + left if left else ''}"
    if kind != "refused":
        return kind, f"{told}{'; ' + left if left else ''}"
    if left:
        return "left", f"{left}; {told}"
    if not 12 <= len(told) <= LONGEST or told.count("\n") > 1:
        return "poor", f"{len(told)} characters: {told}"
    if argument and not any(word.lower() in told.lower() for word in words(call, argument, value)):
        return "poor", f"names neither {argument} nor the value: {told}"
    return "well", told


def lacking(kind: str, frame: str, column: str) -> tuple[str, Callable[[State], Callable[[], Any]]]:
    """The summary and the picture of a result whose frame has lost a column."""

    def make(state: State) -> Callable[[], Any]:
        result = copy.copy(getattr(state, kind))
        held = getattr(result, frame).drop(columns=column)
        result = type(result)(**{**vars(result), frame: held})
        return lambda: (result.summary(), result.plot())

    return f"{kind} {frame} without {column}", make


COLUMNS = {
    ("dissection", "frame"): ("fact", "site", "kind", "direction", "first_layer", "last_layer", "position", "metric",
                              "distance", "baseline", "recovery", "defined"),
    ("attacks", "frame"): ("attack", "setting", "part", "step", "model", "fact", "role", "correct", "helped"),
    ("unlearning", "frame"): ("stage", "step", "inside"),
    ("evaluation", "frame"): ("fact", "role"), ("evaluation", "texts"): ("tokens",),
}  # fmt: skip
OTHERS: dict[str, Callable[[State], Callable[[], Any]]] = {
    **dict(lacking(kind, frame, column) for (kind, frame), columns in COLUMNS.items() for column in columns),
    **tables.OTHERS,
}
CASES = cases()

if __name__ == "__main__":
    session(options(__doc__).parse_args(), list(CASES), ready, answer, make)
