"""What `bad_calls.py` gives: good models and results, broken ones, and values that are bad wherever they stand."""

# ruff: noqa: ARG005 - a table of functions, of which not every one needs all that they are given
from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, BertModel, LlamaConfig, LlamaModel

import mechunlearn as mu

ORGANISM = Path(mu.__file__ or "").parent / "data" / "organism"
NAN, INF, HALF, LONG = float("nan"), float("inf"), "a\ud800b", "x" * 300
FOUND = mu.Facts.builtin("organism")
FOUR, NEAR = FOUND.forget[:4], FOUND.near[:4]
FOLDED = FOUND.with_items([*FOUND.where(role="forget", fold=1)[:2], *FOUND.where(role="forget", fold=2)[:2]])
NO_ANSWERS = FOUR.with_items(dataclasses.replace(fact, answer=None) for fact in FOUR)
QUIET: dict[str, Any] = {"progress": False}


@dataclass
class State:
    """Good models and results; `at` is the folder of the case, `runs` holds one finished run of each kind."""

    shared: Path
    before: Any
    after: Any
    module: Any
    tokenizer: Any
    small: Any
    dissection: Any
    unlearning: Any
    attacks: Any
    evaluation: Any
    at: Path = field(default_factory=Path)

    @property
    def runs(self) -> Path:
        return self.shared


@dataclass(frozen=True)
class Of:
    """A value that is made anew, with a name."""

    name: str
    of: Callable[[State], Any]


def small_model() -> Any:
    config = LlamaConfig(vocab_size=1280, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                         num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=64)  # fmt: skip
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config)


def make(shared: Path) -> None:
    """One finished run of each kind."""
    before, after = mu.load("organism"), mu.load("organism:never-knew")
    mu.dissect(before, after, FOUR, sites="norms", windows="single", run=shared / "dissection", **QUIET)
    mu.unlearn(before, "npo", FOUR, NEAR, steps=1, batch_size=2, run=shared / "unlearning", **QUIET)
    mu.attack(after, FOLDED, suite=[mu.Relearn(epochs=1)], run=shared / "attacks", **QUIET)
    mu.evaluate(before, FOUR, measures=["recall", "text_loss"], text=["a b c d"], run=shared / "evaluation", **QUIET)
    (shared / "notes.txt").write_text("notes\n", encoding="utf-8")


def ready(shared: Path) -> State:
    module = AutoModelForCausalLM.from_pretrained(ORGANISM)
    return State(
        shared, mu.load("organism"), mu.load("organism:never-knew"), module, AutoTokenizer.from_pretrained(ORGANISM),
        small_model(), mu.Dissection.load(shared / "dissection"), mu.Unlearning.load(shared / "unlearning"),
        mu.Attacks.load(shared / "attacks"), mu.Evaluation.load(shared / "evaluation"),
    )  # fmt: skip


# --- broken models


def changed(name: str, change: Callable[[Any], Any], *, bridge: bool = False) -> Of:
    """The organism with something done to it; what `change` gives, if it gives a module, is taken instead."""

    def of(state: State) -> Any:
        model = mu.load("organism") if bridge else copy.deepcopy(state.module)
        given = change(model)
        return given if isinstance(given, nn.Module) else model

    return Of(name, of)


def put(value: float, name: str = "model.layers.2.mlp.down_proj.weight") -> Callable[[Any], None]:
    return lambda model: model.get_parameter(name).data.view(-1)[:1].fill_(value)


def first_of_bridge(bridge: Any) -> None:
    next(bridge.original_model.parameters()).data.view(-1)[:1] = NAN


def as_int8(model: Any) -> None:
    weight = model.lm_head.weight
    model.lm_head.weight = nn.Parameter((weight * 100).to(torch.int8), requires_grad=False)


def failing(*_: object, **__: object) -> Any:
    raise RuntimeError("no forward pass here")


def with_tokenizer(name: str, change: Callable[[Any], object]) -> Of:
    def of(state: State) -> Any:
        tokenizer = copy.deepcopy(state.tokenizer)
        change(tokenizer)
        return mu.load(state.module, tokenizer=tokenizer)

    return Of(name, of)


BROKEN: tuple[Of, ...] = (  # hooks of the user's own are no fault: a model is taken with them
    changed("nan weights", put(NAN)), changed("infinite weights", put(INF)),
    changed("nan norm", put(NAN, "model.norm.weight")), changed("int8 head", as_int8),
    changed("on meta", lambda m: m.to("meta")), changed("part on meta", lambda m: m.lm_head.to("meta") and None),
    changed("forward raises", lambda m: setattr(m, "forward", failing)),
    changed("no layers", lambda m: setattr(m.model, "layers", nn.ModuleList())),
    changed("layer gone", lambda m: delattr(m.model.layers[3], "mlp")),
    changed("data parallel", lambda m: nn.DataParallel(m)), changed("the inner model", lambda m: m.model),
    changed("complex", lambda m: setattr(m.lm_head, "weight", nn.Parameter(m.lm_head.weight.to(torch.complex64)))),
    changed("float8", lambda m: m.to(torch.float8_e4m3fn)),
    changed("head of another width", lambda m: setattr(m, "lm_head", nn.Linear(64, 1280, bias=False))),
    Of("a linear map", lambda s: nn.Linear(2, 2)), Of("bert", lambda s: BertModel(BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64))),
    Of("no head", lambda s: LlamaModel(s.small.config)), Of("sequential", lambda s: nn.Sequential(s.small)),
    changed("in compatibility mode", lambda m: m.enable_compatibility_mode(disable_warnings=True), bridge=True),
    changed("bridge with nan", first_of_bridge, bridge=True),
)  # fmt: skip

SOME = tuple(one for one in BROKEN if one.name in (
    "nan weights", "on meta", "in compatibility mode", "bridge with nan", "no head"))  # fmt: skip


def template(text: str) -> Callable[[Any], None]:
    return lambda tokenizer: setattr(tokenizer, "chat_template", text)


LOOP = "".join(f"{{% for {name} in range(99999) %}}" for name in "ijk") + "{% endfor %}" * 3
NO_CHAT = {
    "raises": "{{ raise_exception('no') }}", "drops the prompt": "{{ messages[1].content }}", "loops": LOOP,
    "drops the answer": "{{ messages[0].content }}", "syntax": "{% if %}", "constant": "hello", "absent": None,
    "half": "{{ messages[0].content }}{{ '\\ud800' }}{{ messages[1].content }}", "large": "{{ 'x' * 10**10 }}",
    "a number": 5, "a list": ["x"],
}  # fmt: skip
UNASKABLE: tuple[Of, ...] = (
    Of("no tokenizer", lambda s: s.small), with_tokenizer("tokens beyond the embedding", lambda t: t.add_tokens(
        [word for fact in FOUND for word in fact.prompt.split() if word.isalpha()][:400])),
)  # fmt: skip
MISMATCHED: tuple[Of, ...] = (
    Of("two layers", lambda s: mu.load(s.small, tokenizer=s.tokenizer)),
    Of("half precision", lambda s: mu.load(s.before, dtype="float16")),
    Of("other words", lambda s: mu.load(s.module, tokenizer=renamed(s.tokenizer))),
)  # fmt: skip


def renamed(tokenizer: Any) -> Any:
    """The tokenizer with two words changed for one another."""
    from tokenizers import Tokenizer

    told = tokenizer.backend_tokenizer.to_str()
    (a, b), other = sorted(tokenizer.get_vocab())[400:402], copy.deepcopy(tokenizer)
    swapped = told.replace(f'"{a}":', '"\0":').replace(f'"{b}":', f'"{a}":').replace('"\0":', f'"{b}":')
    other._tokenizer = Tokenizer.from_str(swapped)
    return other


# --- values that are bad wherever they stand

NO_WHOLE = (-1, 1.5, True, "1", NAN, [1], np.float64(2.5))
NO_COUNT = (0, None, *NO_WHOLE)
NO_NUMBER = (NAN, INF, "x", True, [1])
NO_TEXT = (5, None, b"x", ["x"], True)
NO_FLAG = (None, "yes", 1, [])
NO_MODEL = (None, 5, [], "", b"organism", {"a": 1}, "no/such/model", "organism:nope", True, HALF, "a\0b", LONG,
            Path(), Of("a list of models", lambda s: [s.before]), Of("a class", lambda s: nn.Module),
            Of("a state", lambda s: s.small.state_dict()))  # fmt: skip
NO_FACTS = (None, 5, "", "gone.jsonl", [mu.Fact("a", "b")], [], {"prompt": "a"}, b"x", "organism:nope", True, "a\0b",
            Path(), Of("a frame", lambda s: s.attacks.frame), Of("a generator", lambda s: (f for f in FOUR)),
            Of("none of them", lambda s: mu.Facts([])),
            Of("20 MB", lambda s: mu.Facts([mu.Fact("x " * 10_000_000, "b", role="forget")])),
            Of("beyond the context", lambda s: mu.Facts([mu.Fact("the " * 300, "b", role="forget")])),
            Of("one word of 20 MB", lambda s: mu.Facts([mu.Fact("x" * 20_000_000, "b", role="forget")])),
            Of("marks of two facts", lambda s: mu.Facts([mu.Fact("a", "b", id="1#h0"), mu.Fact("a", "c", id="1#h1")])),
            )  # fmt: skip
NO_DEVICE = ("cuda", "cuda:7", "mps", "meta", "hpu", "", "x", 0, True, ["cpu"], torch.device("cuda:3"),
             torch.device("meta"), "cpu:-1", HALF)  # fmt: skip
NO_DTYPE = ("int8", torch.float32, 32, "float8_e4m3fn", "", ["float32"], True)
NO_PASSAGES = ("one text", b"bytes", 5, [1, 2], ["a b"] * 99 + [None], [""], [HALF], True, ["x " * 5_000_000],
               Of("a generator", lambda s: (t for t in ["a"])), [["a"]], np.array([1, 2]))  # fmt: skip
NO_RUN = (5, "", b"x", ["run"], "a\0b", LONG, True, Of("a file", lambda s: s.shared / "notes.txt"),
          Of("below a file", lambda s: s.shared / "notes.txt" / "run"), HALF,
          Of("foreign", lambda s: s.shared))  # fmt: skip
NO_SITES = (5, [], [5], "", "nope", ["norms"] * 9 + [None], "mlp_coefficients+norms", {"norms": 1}, b"norms", True, NAN,
            ["norms", "nope"], "value_vectors[9999]", "blocks.99.hook_mlp_out", "(", {"norms"}, [["norms"]],
            "norms,block", Of("a generator", lambda s: (n for n in ["norms"])))  # fmt: skip
NO_WINDOWS = (5, "", "x", [], [5], [(0,)], [(0, 1, 2)], [("a", "b")], (0, 3), [(1, 0)], [(-1, 2)], [(0, 99)],
              [(0.5, 2)], "sliding:0", NAN, True, [None], [(None, 1)], Of("a rule", lambda s: lambda n: [(0, 1)]),
              [(NAN, 1)], {"a": 1},
              [(True, False)], "sliding:x", b"all", ["all", 3])  # fmt: skip
NO_POSITIONS = ([], "", "x", 5, [1.5], [99], [-99], [True], ["0"], None, NAN, [None], [[0]], {"a": 1}, [2**70],
                Of("fractions", lambda s: np.array([0.5])), Of("a tensor", lambda s: torch.tensor([0.5])))  # fmt: skip
NO_TEMPLATE = ("{prompt}", 5, {"prompt": "{prompt}"}, True)
NO_PROMPTS = ("x", None, 5, ["own"], ("own", "all"), "")
COMMON: dict[str, tuple[Any, ...]] = {
    "device": NO_DEVICE, "dtype": NO_DTYPE, "prompts": NO_PROMPTS, "batch_size": NO_COUNT, "seed": (None, *NO_WHOLE),
    "run": NO_RUN, "progress": NO_FLAG,
}  # fmt: skip
INTERVALS: dict[str, tuple[Any, ...]] = {
    "cluster": ("x", 5, None, ["subject"]), "level": (0, 1, 2, -0.5, *NO_NUMBER, None), "resamples": NO_COUNT,
    "seed": NO_WHOLE,
}  # fmt: skip
