"""Put TransformerLens' hooks into a model of transformers, without a word."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.generalized_components.base import GeneralizedComponent
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..errors import UserError
from ..facts import start_tokens
from .anatomy import slots
from .conformance import check_wrapped, few_logits


def wrap(module: PreTrainedModel, tokenizer: PreTrainedTokenizerBase | None, name: str) -> TransformerBridge:
    """Put TransformerLens' hooks into a causal language model. The weights stay where they are.

    Raises:
        UserError: unknown architecture; NaN or infinite weights, or weights that are no floating-point numbers; the
            wrapped model gives other logits than the module.
    """
    architecture = type(module).__name__
    check_numbers(name, module)
    try:
        plain = few_logits(module)
    except Exception as error:  # a stranger's module: it may raise anything
        raise UserError(f"{name}: {architecture} does not run ({type(error).__name__}: {error})") from error
    try:
        bridge = build_bridge_from_module(module, architecture, hf_config=module.config, model_name=name)
    except (ValueError, KeyError, AttributeError, RuntimeError) as error:
        raise UserError(f"{name}: TransformerLens cannot wrap {architecture}: {error}") from error
    # The bridge's own set-up would swap the tokenizer for one that always adds BOS; facts keep to what it wants.
    if tokenizer is not None:
        bridge.tokenizer = tokenizer
        bridge.cfg.tokenizer_prepends_bos = bool(start_tokens(tokenizer, None))
    if not hasattr(bridge, "blocks") or not any(slot.layer >= 0 for slot in slots(bridge)):
        raise UserError(f"{name}: {architecture} has no decoder blocks that can be patched")
    check_wrapped(name, module, plain)
    return bridge.eval()


def check_numbers(name: str, module: nn.Module) -> None:
    """Whether parameters are numbers: looked at each time, for they can be changed without a trace (`.data`).

    Raises:
        UserError: parameters that are no floating-point numbers, or hold NaN or infinite ones.
    """
    for parameter_name, parameter in module.named_parameters():
        if parameter.is_meta:
            raise UserError(
                f"{name}: {parameter_name} is on the device 'meta', which holds no numbers; load the weights"
            )
        if not parameter.is_floating_point():
            kind = str(parameter.dtype).removeprefix("torch.")
            raise UserError(f"{name}: {parameter_name} is quantised ({kind}); give the model in float32 or bfloat16")
        if parameter.element_size() == 1:
            raise UserError(f"{name}: {parameter_name} is quantised ({parameter.dtype}); give the model in bfloat16")
        # The extremes tell of all, at a tenth of the cost of a flag for each.
        if parameter.numel() and not torch.stack(torch.aminmax(parameter.detach())).isfinite().all():
            mend = "the checkpoint is not usable"
            if parameter.dtype == torch.float16:
                mend = "its numbers may be too large for float16: load it in float32 or bfloat16"
            raise UserError(f"{name}: {parameter_name} holds NaN or infinite values; {mend}")


def unwrapped(module: nn.Module) -> nn.Module:
    """The module without the parts of a bridge in it, in place: those of a copy point to the bridge copied from."""
    for name, child in list(module.named_children()):
        while isinstance(child, GeneralizedComponent):
            child = cast(nn.Module, child.original_component)
        setattr(module, name, unwrapped(child))
    return module


class quiet_loading:  # noqa: N801 - used as a statement, like contextlib.suppress
    """No progress bars and no advice from transformers while a model is put together."""

    def __enter__(self) -> None:
        from huggingface_hub.utils import logging as hub_logging
        from transformers.utils import logging

        self._hub_level = hub_logging.get_verbosity()
        hub_logging.set_verbosity_error()
        self._level, self._bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()

    def __exit__(self, *_: object) -> None:
        from huggingface_hub.utils import logging as hub_logging
        from transformers.utils import logging

        hub_logging.set_verbosity(self._hub_level)
        logging.set_verbosity(self._level)
        if self._bars:
            logging.enable_progress_bar()
