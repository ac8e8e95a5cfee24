"""What a run was made with, as plain values: they decide whether a run folder may be gone on with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

import pandas as pd
from transformer_lens.model_bridge import TransformerBridge

from ..facts import Facts, tokenize, tokens_hash
from ..models import fingerprint
from .method import Method
from .methods.layered import Layered
from .options import Options


def run_settings(
    model: TransformerBridge,
    method: Method | Layered,
    options: Options,
    forget: Facts,
    retain: Facts,
    text: Sequence[str] | None,
    retain_text: Sequence[str] | None,
) -> dict[str, Any]:
    """Everything that decides the result, as a run folder gives it back."""
    found = {
        "model": fingerprint(model),
        "method": method.name,
        "settings": settings_of(method),
        **asdict(options),
        "forget": forget.hash,
        "tokens": tokens_hash(tokenize(forget.questions(options.prompts), model.tokenizer, context=model.cfg.n_ctx)),
        "retain": retain.hash,
        "text": None if text is None else _hash(text),
        "retain_text": None if retain_text is None else _hash(retain_text),
    }
    return json.loads(json.dumps(found))


def settings_of(method: Method | Layered) -> dict[str, Any]:
    """A method's settings as plain values, with those of the methods in it."""
    found = {}
    for field in fields(method):
        value = getattr(method, field.name)
        found[field.name] = {"name": value.name, **settings_of(value)} if isinstance(value, Method) else value
    return found


def measured_settings(method: Method, fitted: Method) -> dict[str, Any]:
    """The settings that were measured of the model (`Method.fitted`), an inner method's with a dot."""
    found = {}
    for field in fields(method):
        given, filled = getattr(method, field.name), getattr(fitted, field.name)
        if isinstance(given, Method):
            found |= {f"{field.name}.{name}": value for name, value in measured_settings(given, filled).items()}
        elif given != filled:
            found[field.name] = filled
    return found


def kept_row(frame: pd.DataFrame, about: Mapping[str, Any]) -> pd.Series:
    """The row of a run's frame that was measured of the model it ended with; not every run ends inside its budget."""
    return frame[frame["step"] == about["step"]].iloc[-1]


def _hash(text: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(text)).encode()).hexdigest()
