"""What `bad_calls.py` calls: calls that are good, and for each of their arguments values that are not."""

# ruff: noqa: ARG005, I001 - functions of one form, of which not every one needs all that they are given; one block of names
from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
from bad_call_values import (
    BROKEN, COMMON, FOLDED, FOUR, HALF, INF, INTERVALS, LONG, MISMATCHED, NAN, NEAR, NO_ANSWERS, NO_CHAT, NO_COUNT,
    NO_DEVICE, NO_DTYPE, NO_FACTS, NO_FLAG, NO_MODEL, NO_NUMBER, NO_PASSAGES, NO_POSITIONS, NO_PROMPTS, NO_SITES,
    NO_TEMPLATE, NO_TEXT, NO_WHOLE, NO_WINDOWS, QUIET, SOME, UNASKABLE, Of, State, template, with_tokenizer,
)  # fmt: skip

import mechunlearn as mu
from mechunlearn import evaluation, facts as facts_room, sites
from mechunlearn.attacks import below_bin
from mechunlearn.facts import tokenize

# --- calls that are good without these, each with the arguments to spoil

Call = tuple[Callable[[State], Callable[..., Any]], Callable[[State], dict[str, Any]]]


def plain(function: Callable[..., Any], **good: Any) -> Call:
    return lambda s: function, lambda s: dict(good)


def of_result(kind: str, verb: str) -> Call:
    return lambda s: getattr(getattr(s, kind), verb), lambda s: {}


CALLS: dict[str, Call] = {
    "load": (lambda s: mu.load, lambda s: {"source": s.module}),
    "compare": (lambda s: mu.compare, lambda s: {"before": s.before, "after": s.after}),
    "clone": (lambda s: mu.clone, lambda s: {"model": s.before}),
    "save": (lambda s: mu.save, lambda s: {"model": s.before, "folder": "new"}),
    "dissect": (lambda s: mu.dissect, lambda s: {
        "before": s.before, "after": s.after, "facts": FOUR, "sites": "norms", "windows": "all", "run": s.at / "run",
        **QUIET}),
    "unlearn": (lambda s: mu.unlearn, lambda s: {
        "model": s.before, "method": mu.NPO(), "forget": FOUR, "retain": NEAR, "steps": 1, "batch_size": 2,
        "run": s.at / "run", **QUIET}),
    "attack": (lambda s: mu.attack, lambda s: {
        "model": s.after, "facts": FOLDED, "suite": "quantise", "run": s.at / "run", **QUIET}),
    "relearn": (lambda s: mu.relearn, lambda s: {
        "model": s.after, "train": FOUR[:2], "test": FOUR[2:], "settings": mu.Relearn(epochs=1), "run": s.at / "run",
        **QUIET}),
    "evaluate": (lambda s: mu.evaluate, lambda s: {
        "model": s.before, "facts": FOUR, "measures": ["recall"], "run": s.at / "run", **QUIET}),
    "evaluate choices": (lambda s: mu.evaluate, lambda s: {
        "model": s.before, "facts": FOUR, "measures": ["choice_accuracy"], "letters": False, **QUIET}),
    "evaluate generations": (lambda s: mu.evaluate, lambda s: {
        "model": s.before, "facts": FOUR, "measures": ["rouge_l"], "before": s.after, "max_new_tokens": 2, **QUIET}),
    "chat": (lambda s: mu.evaluate, lambda s: {
        "model": s.before, "facts": FOUR, "measures": ["recall"], "template": mu.Template(chat=True),
        "run": s.at / "run", **QUIET}),
    "report": (lambda s: mu.report, lambda s: {"folder": s.runs / "dissection", "out": s.at / "page.html"}),
    "promoted": (lambda s: mu.promoted, lambda s: {"model": s.before, "layer": 3, "neurons": [17]}),
    "neuron_changes": (lambda s: mu.neuron_changes, lambda s: {"before": s.before, "after": s.after, "facts": FOUR}),
    "weight_changes": (lambda s: mu.weight_changes, lambda s: {"before": s.before, "after": s.after}),
    "change_spectra": (lambda s: mu.change_spectra, lambda s: {"before": s.before, "after": s.after}),
    "plot_changes": (lambda s: mu.plot_changes, lambda s: {"table": mu.weight_changes(s.before, s.after)}),
    "below_bin": (lambda s: below_bin, lambda s: {"before": s.before, "after": s.after, "scheme": "int4"}),
    "sites.resolve": (lambda s: sites.resolve, lambda s: {"name": "norms", "model": s.before}),
    "sites.available": (lambda s: sites.available, lambda s: {"model": s.before}),
    "greedy_answers": (lambda s: evaluation.greedy_answers, lambda s: {"model": s.before, "facts": FOUR[:1], **QUIET}),
    "evaluate texts": (lambda s: mu.evaluate, lambda s: {
        "model": s.before, "facts": FOUR, "text": ["a b c d"], "measures": ["text_loss"], "run": s.at / "run",
            **QUIET}),
    "evaluate divergence": (lambda s: mu.evaluate, lambda s: {
        "model": s.before, "facts": FOUR, "text": ["a b c d"], "measures": ["text_kl"], "before": s.after, **QUIET}),
    "attack with text": (lambda s: mu.attack, lambda s: {
        "model": s.after, "facts": FOLDED, "suite": [mu.Relearn(data="text", epochs=1)], "text": ["a b c d"],
        "run": s.at / "run", **QUIET}),
    "benchmark": (lambda s: evaluation.benchmark, lambda s: {"model": s.module, "tasks": ["mmlu"], "limit": 1}),
    "tokenize": (lambda s: tokenize, lambda s: {"facts": FOUR, "tokenizer": s.tokenizer}),
    "tokenize_texts": (lambda s: facts_room.tokenize_texts, lambda s: {"texts": ["a"], "tokenizer": s.tokenizer}),
    "multiple_choice": plain(facts_room.multiple_choice, fact=FOUR[0]),
    "sliding": plain(mu.sliding), "given": plain(mu.given), "organism_text": plain(mu.organism_text),
    "Fact": plain(mu.Fact, prompt="a", answer="b"), "Template": plain(mu.Template),
    "Template with chat": plain(mu.Template, chat=True), "Facts": plain(mu.Facts, items=[mu.Fact("a", "b")]),
    "Facts.read": (lambda s: mu.Facts.read, lambda s: {"source": own_file(s)}),
    "Facts.of": plain(mu.Facts.of, source="organism"), "Facts.builtin": plain(mu.Facts.builtin),
    "Facts.questions": plain(FOUR.questions), "Facts.where": plain(FOUR.where),
    "Facts.with_answers": plain(FOUR.with_answers), "Facts.with_items": plain(FOUR.with_items),
    "Facts.save": plain(FOUR.save),
    "configure": plain(mu.unlearning.configure, name="npo"), "make_budget": plain(mu.unlearning.make_budget),
    "make_layered": plain(mu.unlearning.make_layered, inner=mu.NPO()),
    "Budget": plain(mu.Budget, kl=0.1), "Layered": plain(mu.Layered, method=mu.NPO()),
    **{f"{kind}.{verb}": of_result(kind, verb) for kind, verb in (
        ("dissection", "summary"), ("dissection", "plot"), ("dissection", "save"), ("attacks", "summary"),
        ("attacks", "curve"), ("attacks", "steps_to_recover"), ("attacks", "plot"), ("attacks", "plot_curve"),
        ("attacks", "save"), ("evaluation", "summary"), ("evaluation", "plot"), ("evaluation", "save"),
        ("unlearning", "save"), ("dissection", "load"), ("attacks", "load"), ("evaluation", "load"),
        ("unlearning", "load"))},
    **{name: plain(type(method)) for name, method in mu.METHODS.items()},
    **{f"{name} attack": plain(type(attack)) for name, attack in mu.ATTACKS.items()},
    "paired": (lambda s: evaluation.paired, lambda s: dict.fromkeys(("first", "second"), s.evaluation.frame)),
    "bootstrap_interval": plain(evaluation.bootstrap_interval, values=[0.0, 1.0, 1.0]),
    "share_interval": plain(evaluation.share_interval, values=[0.0, 1.0, 1.0]),
}  # fmt: skip


def own_file(state: State) -> Path:
    FOUR.save(state.at / "facts.jsonl")
    return state.at / "facts.jsonl"


NO_FRAME = (5, None, "x", [], pd.DataFrame(), pd.DataFrame({"a": [1]}), {"a": 1})
NO_FOLDER = (5, None, "gone", b"x", "a\0b", LONG, True, [], Of("a file", lambda s: s.shared / "notes.txt"))
NO_TARGET = (5, None, b"x", "a\0b", LONG, True, Of("a file", lambda s: s.shared / "notes.txt"),
             Of("foreign", lambda s: s.shared))  # fmt: skip
TEXTS = (5, "ab", ["a"], ("",), (5,), (HALF,), None, ("a",) * 99 + (5,))
TABLE: dict[str, dict[str, tuple[Any, ...]]] = {
    "load": {"source": (*NO_MODEL, *BROKEN), "device": NO_DEVICE, "dtype": NO_DTYPE, "revision": (5, True, b"x"),
             "tokenizer": ("organism", 5, Of("a class", lambda s: type(s.tokenizer))), "merge": NO_FLAG},
    "compare": {"before": NO_MODEL, "after": (*NO_MODEL, *SOME, *MISMATCHED)},
    "clone": {"model": (5, None, "organism"), "tokenizer": (5, "x")},
    "save": {"model": (5, None, "organism"), "folder": NO_TARGET},
    "dissect": COMMON | {
        "before": (*NO_MODEL, *SOME, *UNASKABLE, *MISMATCHED), "after": (*NO_MODEL, *SOME, *MISMATCHED),
        "facts": NO_FACTS, "sites": NO_SITES, "windows": NO_WINDOWS, "direction": ("x", None, 5, "before", ["x"]),
        "positions": NO_POSITIONS, "template": NO_TEMPLATE,
        "tokenizer": ("x", None, 5, Of("one itself", lambda s: s.tokenizer)), "max_tokens": (0, *NO_WHOLE)},
    "unlearn": COMMON | {
        "model": (*NO_MODEL, *SOME, *UNASKABLE, MISMATCHED[1]), "forget": (*NO_FACTS, NO_ANSWERS, NEAR),
        "retain": (*NO_FACTS, NO_ANSWERS, FOUR), "method": (None, 5, "x", mu.NPO, [mu.NPO()], "layered", mu.Relearn(),
            ""),
        "text": NO_PASSAGES, "retain_text": NO_PASSAGES,
        "budget": (*NO_NUMBER, -1, {"kl": 1}, mu.Budget(kl=1), mu.Budget(far=0.5)),
        "stop": (NAN, 2, -0.1, "x", True, [0.5], "Chance"), "patience": (0, *NO_WHOLE), "steps": NO_COUNT,
        "learning_rate": (0, -1, *NO_NUMBER), "optimizer": ("x", *NO_TEXT), "schedule": ("x", *NO_TEXT),
        "warmup": (None, *NO_WHOLE), "weight_decay": (-1, None, *NO_NUMBER), "clip": (0, -1, *NO_NUMBER),
        "accumulation": (3, *NO_COUNT), "precision": ("x", *NO_TEXT), "checkpointing": NO_FLAG,
        "trainable": (5, [], [5], "", "nope", ["norms"] * 9 + [None], "mlp_coefficients", "value_vectors[3]", b"norms",
                      {"norms": 1}, True, "(", "norms,block"),
        "evaluate_every": NO_COUNT},
    "attack": COMMON | {
        "model": (*NO_MODEL, *SOME, *UNASKABLE), "facts": (*NO_FACTS, NEAR, NO_ANSWERS),
        "suite": ("x", 5, None, [], [5], ["relearn", "x"], "", "prompts,noise", mu.Relearn, mu.NPO(), {"relearn": 1},
                  [None], True, ["steer"], Of("a generator", lambda s: (n for n in ["noise"])), {"noise"}),
        "before": (*NO_MODEL[1:], *SOME, *UNASKABLE, *MISMATCHED),
        "never_knew": (*NO_MODEL[1:], *SOME, *MISMATCHED)},
    "relearn": COMMON | {
        "model": (*NO_MODEL, *SOME, *UNASKABLE, MISMATCHED[1]), "train": (*NO_FACTS, FOUR[2:], NO_ANSWERS),
        "test": (*NO_FACTS, FOUR[:1]), "settings": ("x", {}, mu.Noise(), mu.Relearn, 5, True),
        "never_knew": (*NO_MODEL[1:], *SOME, *MISMATCHED)},
    "evaluate": COMMON | {
        "model": (*NO_MODEL, *SOME, *UNASKABLE), "facts": (*NO_FACTS, NO_ANSWERS),
        "before": (*NO_MODEL[1:], *SOME), "template": NO_TEMPLATE, "letters": NO_FLAG,
        "measures": ("x", "", [], [5], 5, ["recall"] * 99 + [None], b"recall", True, {"recall"}, "text_loss", "rouge_l",
                     ["recall", "x"], {"recall": 1}, "recall,rank"),
        "options": (1, *NO_COUNT), "max_new_tokens": NO_COUNT},
    "evaluate choices": {"options": (1, 0, 10**9, *NO_WHOLE), "batch_size": NO_COUNT},
    "evaluate generations": {"max_new_tokens": (0, 10**9, *NO_WHOLE), "before": (None, *UNASKABLE)},
    "evaluate texts": {"text": NO_PASSAGES}, "attack with text": {"text": NO_PASSAGES},
    "evaluate divergence": {"before": (None, MISMATCHED[2])},
    "chat": {"model": tuple(with_tokenizer(name, template(text)) for name, text in NO_CHAT.items())},
        # type: ignore[arg-type]
    "report": {"folder": (*NO_FOLDER, ""), "format": ("x", "", "HTML", *NO_TEXT),
               "out": (5, True, b"x", "a\0b", LONG, Of("a folder", lambda s: s.shared), "")},
    "promoted": {"model": NO_MODEL, "layer": (-1, 99, *NO_COUNT[1:]), "neurons": (
        "0", [], [1.5], -1, 10**6, None, True, NAN, [None], ["x"]), "k": (0, 10**6, *NO_WHOLE), "sign": (0, 2, "x",
            True, None)},
    "neuron_changes": {"before": NO_MODEL, "after": MISMATCHED, "facts": (*NO_FACTS, NO_ANSWERS), "prompts": NO_PROMPTS,
                       "template": NO_TEMPLATE},
    "weight_changes": {"before": NO_MODEL, "after": MISMATCHED}, "change_spectra": {"before": NO_MODEL},
    "plot_changes": {"table": NO_FRAME, "measure": ("x", "name", *NO_TEXT), "first": NO_COUNT},
    "below_bin": {"before": NO_MODEL[:3], "scheme": ("x", *NO_TEXT)},
    "sites.resolve": {"name": ("", "x", "(", "norms[0]", "norms+block", *NO_TEXT), "model": (5, None, "organism")},
    "sites.available": {"model": (5, None, "organism")},
    "greedy_answers": {"model": (5, None, "organism"), "facts": (5, None, "organism", [5]), "template": NO_TEMPLATE,
                       "max_new_tokens": NO_COUNT, "batch_size": NO_COUNT},
    "benchmark": {"tasks": (5, [], [None]), "limit": (0, *NO_WHOLE), "batch_size": NO_COUNT},
    "tokenize": {"facts": (5, None, [], "ab", [5], mu.Facts([])), "tokenizer": (5, None, "organism"),
                 "template": NO_TEMPLATE, "context": (0, 1, *NO_WHOLE)},
    "tokenize_texts": {"texts": ("one text", [], 5, None, [5], [None], [HALF]), "tokenizer": (5, None, "organism"),
                       "context": (0, *NO_WHOLE), "bos": ("x", 1)},
    "multiple_choice": {"fact": (5, None, mu.Fact("a", "b")), "options": (1, 27, *NO_COUNT), "letters": NO_FLAG,
        "seed": NO_WHOLE},
    "sliding": {"width": NO_COUNT}, "organism_text": {"split": ("x", *NO_TEXT)},
    "given": {"windows": (5, None, "ab", [5], [("a", 1)], [(0,)], [(0, 1, 2)], [(0.5, 1)], [(NAN, 1)], [None], [],
                          [(True, 2)], [(3, 1)], [(-1, 2)])},
    "Fact": {
        "prompt": ("", " ", HALF, *NO_TEXT), "answer": ("", " \n", HALF, 5, b"x", ["x"], True),
        "id": (HALF, *NO_TEXT), **dict.fromkeys(("paraphrases", "held_out", "distractors"), TEXTS),
        **dict.fromkeys(("subject", "relation", "domain", "paraphrased_answer"), (5, ["x"], HALF, True, NAN)),
        "fold": ("1", 1.5, True, NAN, [1]), "role": ("x", 5, "", ["forget"], "FORGET")},
    "Template": {"prompt": ("x", "{prompt}{prompt}", HALF + "{prompt}", *NO_TEXT), "answer": ("", "x", *NO_TEXT),
                 "chat": NO_FLAG, "bos": ("x", 1, []), "system": (5, "without chat", True), "arguments": (5, [], None,
                     {"a": 1})},
    "Template with chat": {"system": (5, HALF, True), "arguments": (5, [("a", 1)], "x", {1: 2})},
    "Facts": {"items": (5, None, "ab", [5], [None], [mu.Fact("a", "b", id="1"), mu.Fact("c", "d", id="1")],
                        mu.Fact("a", "b"), {"a": 1}), "name": (5, None, HALF), "template": ("{prompt}", 5),
                        "format": (5, None)},
    "Facts.read": {"source": (5, None, "gone.jsonl", "", b"x", "a\0b", LONG, "/dev/zero", Path(), ["x"]),
                   "format": ("x", 5, "", ["own"]), "keys": ("x", 5, ""),
                   "columns": ("prompt", 5, {"prompt": 5}, {"nope": "prompt"}, {5: "prompt"}, {}, ["prompt"],
                       {"prompt": "gone"})},
    "Facts.of": {"source": NO_FACTS[:13], "role": ("x", 5, ["x"], [], "")},
    "Facts.builtin": {"name": ("x", *NO_TEXT), "forget": ("x", *NO_TEXT)}, "Facts.questions": {"prompts": NO_PROMPTS},
    "Facts.where": {"nope": (1,), "rôle": ("forget",)},
    "Facts.with_answers": {"answers": ("abcd", 5, None, ["a"], ["a", "b", "c", ""], ["a", "b", "c", 5], [HALF] * 4)},
    "Facts.with_items": {"items": (5, None, "ab", [5])}, "Facts.save": {"path": (5, None, "a\0b", LONG, b"x")},
    "configure": {"name": ("x", *NO_TEXT), "settings": ({"nope": 1}, {"beta": "x"}, {"beta": NAN}, {"beta.x": 1},
        {5: 1}, 5, "x", [1])},
    "make_budget": {"values": ({}, {"nope": 1}, {"kl": "x"}, NAN, -1, "x", None, [1], {"kl": NAN}, {5: 1})},
    "make_layered": {"values": (0, -1, {"nope": 1}, "x", None, 1.5, True, {"folds": 0})},
    "Budget": {"kl": (-1, *NO_NUMBER), "loss": (-1, *NO_NUMBER), "near": (-1, 1.5, *NO_NUMBER), "far": (-1, 1.5,
        *NO_NUMBER),
               "halvings": (None, *NO_WHOLE)},
    "Layered": {"method": (5, "npo", None, mu.NPO), "folds": NO_COUNT, "order": ((1, 1, 2, 3), (1, 2), "1234", 5, (0, 1,
        2, 3)),
                "decay": (-1, 2, None, *NO_NUMBER), **dict.fromkeys(("forget", "retain", "base"), (-1, (1.0,), None,
                    *NO_NUMBER)),
                "stage_stop": (2, NAN, "x", True), "repeat": NO_COUNT},
    "dissection.summary": INTERVALS, "attacks.summary": INTERVALS | {
        "measure": ("x", *NO_TEXT), "by": ("x", ("setting",), *NO_TEXT)},
    "dissection.plot": {"metric": ("x", *NO_TEXT), "statistic": ("x", *NO_TEXT), "direction": ("x", 5, ["x"]),
                        "windows": ("x", 5, [], "sliding:3", [(0, 1)], "")},
    "attacks.curve": {"measure": ("x", *NO_TEXT)}, "attacks.plot_curve": {"measure": ("x", *NO_TEXT)},
    "attacks.steps_to_recover": {"level": (-1, 2, None, *NO_NUMBER)},
    "attacks.plot": {"measure": ("x", *NO_TEXT), "by": ("x", *NO_TEXT)},
    "evaluation.summary": INTERVALS | {"by": ("x", ("x",), (), ("role", "role"), 5, None, ("measure",), [5], ("value",),
        "r", [None])},
    "evaluation.plot": {"by": ("x", (), ("role", "role"), 5, None, ("role", "nope"))},
    **{f"{kind}.save": {"folder": NO_TARGET} for kind in ("dissection", "attacks", "evaluation", "unlearning")},
    **{f"{kind}.load": {"folder": (*NO_FOLDER, "", Of("no run", lambda s: s.shared), Of("another kind", lambda s,
    other=other: s.runs / other))}
       for kind, other in (("dissection", "attacks"), ("attacks", "evaluation"), ("evaluation", "unlearning"),
       ("unlearning", "dissection"))},
    "paired": {"first": NO_FRAME, "second": NO_FRAME, "by": ((), ("x",), 5, ("role", "role")), **INTERVALS},
    "bootstrap_interval": {"values": ([], [NAN], [INF], "x", 5, None, ["x"]), "over": ([1.0], [0.0, 0.0, 0.0], "x"),
                           "clusters": ([1], 5), "level": INTERVALS["level"], "resamples": NO_COUNT, "seed": NO_WHOLE},
    "share_interval": {"values": ([], [2.0], [-1.0], [NAN], "x"), "level": INTERVALS["level"], "clusters": ([1], 5)},
}  # fmt: skip
NUMBERS_OF = {"rmu": ("steering", "relative"), "cir": ("activations", "gradients", "step_norm", "retain_rate"),
              "mlp_breaking": ("floor", "power")}  # fmt: skip
SETTINGS: dict[str, dict[str, tuple[Any, ...]]] = {
    "rmu": {"layer": ("x", NAN, True, None), "steering": (0, -1), "relative": (0, -1, None), "vectors": ("x", 5),
        "entries": ("x", 5)},
    "mlp_breaking": {"form": ("x", 5), "where": ("x", 5), "blocks": ((1,), 5, "ab", (0.5, "x"), (NAN, 1.0)),
        "power": (0, -1)},
    "circuit_breakers": {"targets": ((), 5, ("x",), (NAN,), (True,)), "lora_rank": (0, -1, 1.5, "x", True),
        "lora_alpha": NO_COUNT},
    "cir": {"objective": ("npo", 5, None, mu.CIR(), mu.Layered(method=mu.NPO())), "collapse": ("x", 5),
        "statistics": ("x", 5),
            "form": ("x", 5), "faithful": NO_FLAG, "step_norm": (0, -1), "retain_rate": (-1,), "activations": (-1,),
                "gradients": (-1,)},
    "idk": {"refusals": ((), 5, "ab", ("",), (5,), (HALF,), ("x" * 9000,), None)},
    "idk_dpo": {"refusals": ((), "ab", (" ",))}, "simnpo": {"delta": NO_NUMBER},
    "relearn attack": {"data": ("x", 5), "subsets": ("x", 5), "form": ("x", 5), "trainable": ("x", 5, ["mlp"]),
        "rank": NO_COUNT,
                       "optimizer": ("x", 5), "learning_rate": (0, -1, None, *NO_NUMBER), "epochs": (None, *NO_WHOLE),
                           "batch_size": NO_COUNT},
    "prompts attack": {"frames": ((), "prefix", ("x",), (5,), 5, ("{prompt}{prompt}",)), "shots": NO_COUNT,
        "prefixes": ((0,), 1, (1.5,), ("x",), (True,))},
    "quantise attack": {"scheme": ("x", *NO_TEXT)},
    "noise attack": {"scales": ((), (-1.0,), (NAN,), 0.1, ("x",), (True,), None, (0.1,) * 9 + ("x",)),
                     "draws": NO_COUNT},
    "interpolate attack": {"shares": ((), (2.0,), (-0.1,), (NAN,), 0.5, ("x",), (True,))},
    "ablate attack": {"layers": (1, "12", (1.5,), (True,)), "onwards": NO_FLAG, "vector": ((0.0, 0.0), (NAN,), 5, "x",
        ())},
    "steer attack": {"layers": (1, "12", (1.5,)), "strengths": ((), (NAN,), (INF,), 1.0, ("x",))},
}  # fmt: skip


def all_rows() -> Iterator[tuple[str, str, Any]]:
    """(call, argument, value) of every case."""
    for name, method in mu.METHODS.items():
        for argument in ("forget_weight", "retain_weight", "text_weight"):
            yield from ((name, argument, value) for value in (-1, None, *NO_NUMBER)[: None if name == "npo" else 3])
        yield from ((name, "retain", value) for value in ("x", 5, None))
        if hasattr(method, "beta"):
            low = (0, -1) if method.above_zero else (-1,)
            yield from ((name, "beta", value) for value in (*low, None, *NO_NUMBER))
        yield from ((name, argument, value) for argument in NUMBERS_OF.get(name, ()) for value in NO_NUMBER)
    for table in (TABLE, SETTINGS):
        for call, arguments in table.items():
            yield from ((call, argument, value) for argument, values in arguments.items() for value in values)


def own_layers(name: str) -> Callable[[State], Callable[[], Any]]:
    """An attack on layers that the model lacks."""
    return lambda s: (
        lambda: mu.attack(s.after, FOLDED, suite=[getattr(mu, name)(layers=(99,))], before=s.before, **QUIET)
    )


def dissected(**more: Any) -> Callable[[State], Callable[[], Any]]:
    given: dict[str, Any] = {"sites": "norms", "windows": "all"} | QUIET | more
    return lambda s: lambda: mu.dissect(s.before, s.after, FOUR, **given)


def unlearned(method: Any, **more: Any) -> Callable[[State], Callable[[], Any]]:
    given: dict[str, Any] = {"steps": 1, "batch_size": 2} | QUIET | more
    return lambda s: lambda: mu.unlearn(s.before, method, FOUR, NEAR, run=s.at / "run", **given)


def unfinished(state: State) -> Path:
    shutil.copytree(state.runs / "evaluation", state.at / "run")
    (state.at / "run" / "frame.parquet").unlink()
    return state.at / "run"


OTHERS: dict[str, Callable[[State], Callable[[], Any]]] = {
    "ablate layers beyond": own_layers("AblateDirection"), "steer layers beyond": own_layers("Steer"),
    "ablate vector of another width": lambda s: lambda: mu.attack(s.after, FOLDED,
        suite=[mu.AblateDirection(vector=(1.0, 2.0))], **QUIET),
    "lora rank beyond": lambda s: lambda: mu.relearn(s.after, FOUR[:2], FOUR[2:], settings=mu.Relearn(trainable="lora",
        rank=10**6), **QUIET),
    "rmu layer beyond": unlearned(mu.RMU(layer=99)),
        "circuit breakers targets beyond": unlearned(mu.CircuitBreakers(targets=(99,))),
    "rmu layer below": unlearned(mu.RMU(layer=-1)), "rmu layer between": unlearned(mu.RMU(layer=1.5)),
    "breaking blocks reversed": unlearned(mu.Breaking(blocks=(0.9, 0.1))),
        "breaking blocks below": unlearned(mu.Breaking(blocks=(-1, 2))),
    "circuit breakers targets below": unlearned(mu.CircuitBreakers(targets=(-1,))),
        "cir learning": unlearned(mu.CIR(objective=mu.RMU(layer=50))),
    "cir with learning_rate": unlearned(mu.CIR(), learning_rate=1e-4), "cir with a float retain": unlearned("cir",
        accumulation=5),
    "breaking blocks beyond": unlearned(mu.Breaking(blocks=(50, 99))),
        "layered folds that are not there": unlearned(mu.Layered(method=mu.NPO(), folds=7)),
    "trainable with adapters": unlearned(mu.CircuitBreakers(), trainable="norms"),
        "dpo without distractors": lambda s: lambda: mu.unlearn(
        s.before, "dpo", FOUR.with_items(dataclasses.replace(f, distractors=()) for f in FOUR), NEAR, run=s.at / "run",
        **QUIET),
    "run of other settings": lambda s: lambda: mu.evaluate(s.before, FOUR, measures=["recall"], seed=9,
        run=s.runs / "evaluation", **QUIET),
    "run of another kind": dissected(), "activation windows outside": dissected(sites="mlp_output", windows=[(7, 9)]),
    "positions in no fact": dissected(sites="residual", positions=[60]),
        "evaluation.load of one without frame": lambda s: (
        lambda folder: lambda: mu.Evaluation.load(folder))(unfinished(s)),
    "report of one without frame": lambda s: (lambda folder: lambda: mu.report(folder))(unfinished(s)),
    "report of a result": lambda s: lambda: mu.report(s.dissection),
        "report of a frame": lambda s: lambda: mu.report(s.attacks.frame),
    "report of an empty folder": lambda s: lambda: mu.report(s.at),
        "same id and phrasing": lambda s: lambda: mu.relearn(s.after, FOUR, FOUR, **QUIET),
}  # fmt: skip
OTHERS["run of another kind"] = lambda s: (
    lambda: mu.dissect(s.before, s.after, FOUR, run=s.runs / "evaluation", **QUIET)
)
