"""The cases of `bad_lines.py`: lines for a shell, as tables, and what an answer has to name.

A value stands once for every kind of mistake; the same reader of several commands is asked in each.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import bad_files as bad
from bad_facts import FACT_FILES, SETTINGS, TEXT_FILES
from bad_models import CHATS, MODELS
from bad_runs import FRAME_CHANGES, FRAMES, RUN_JSONS


@dataclass(frozen=True)
class Case:
    """A line, what makes the files it needs, and words of which its answer must hold one (none: any answer)."""

    name: str
    line: tuple[str, ...]
    make: bad.Make = bad.nothing
    tells: tuple[str, ...] = ()


def short(value: str, most: int = 90) -> str:
    text = value.encode("unicode_escape").decode() if not value.isprintable() or not value.isascii() else value
    return text if len(text) <= most else f"{text[: most - 12]}…({len(value)})"


GOOD: dict[str, str] = {
    "dissect": "dissect organism after --facts facts.jsonl --out out --sites norms --windows all --limit 2",
    "unlearn": "unlearn organism --method npo --facts facts.jsonl --out out --steps 1 --batch-size 2 --text text.txt "
    "--retain-text other.txt",
    "attack": "attack after --facts facts.jsonl --out out --suite quantise --text text.txt",
    "evaluate": "evaluate organism --facts facts.jsonl --out out --measures recall --limit 2 --no-letters",
}
KIND = {"dissect": "dissection", "unlearn": "unlearning", "attack": "attacks", "evaluate": "evaluation"}
OUT_ONLY = {"demo": "demo --out out", "build": "organism build --out out"}
LONG, NAME = "x" * 10_000, "x" * 300
ODD = {
    "empty": "",
    "blank": " ",
    "half": "a\udcff",
    "nul": "a\0b",
    "lines": "a\nb",
    "long": LONG,
    "unicode": "\u202eünï\u0301✗",
}
DEVICES = ("cuda", "cuda:7", "gpu", "meta", "mps", "cuda:-1", "xla", "hpu", "cpu:3", "cpu:x", "CPU", "vulkan", "0",
"-1", "xpu", "mkldnn",
           "cuda:99999999999", "privateuseone", "ipu", "cpu,cuda")  # fmt: skip
DTYPES = ("int8", "float3", "complex64", "bool", "torch.float32", "float32 ", "FLOAT32", "fp16", "32", "float8_e4m3fn")
WHOLES = (
    "-1",
    "0",
    "1.5",
    "x",
    "",
    " ",
    "nan",
    "inf",
    "1e3",
    "0x10",
    "9" * 30,
    "9" * 5000,
    "-" + "9" * 30,
    "1,2",
    "\udcff",
    "true",
)
WORDS: dict[str, tuple[str, ...]] = {  # options that take a word, by command
    "dissect": ("format", "columns", "keys", "role", "sites", "windows", "direction", "positions", "metric", "prompts",
                "tokenizer"),
    "unlearn": ("method", "layered", "budget", "stop", "optimizer", "precision", "trainable", "text", "retain-text",
                "prompts", "settings", "columns", "set"),
    "attack": ("never-knew", "before", "suite", "text", "prompts"),
    "evaluate": ("before", "text", "measures", "prompts", "by", "role", "facts"),
}  # fmt: skip
NUMBERS: dict[str, tuple[str, ...]] = {
    "dissect": ("batch-size", "max-tokens", "seed", "limit"),
    "unlearn": ("steps", "batch-size", "accumulation", "evaluate-every", "patience", "seed"),
    "attack": ("batch-size", "seed"),
    "evaluate": ("options", "max-new-tokens", "batch-size", "limit", "seed"),
}
EXPLODING = (r"(.+)+!", r"(\w+\.?)+!", r"^(([a-z_0-9])+.)+[A-Z]([a-z])+$")
BROKEN = ("(", "[", "*", "a{2,1}", "(?P<x>a)(?P<x>b)", "(?<=a+)b", "\\", "(?z)a", "(?P<n", "a" * 9999,
"(" * 5000 + ")" * 5000,
          "a{99999999999}", "nope", "value_vector", "Norms", "router", "expert_keys", "hook_x",
          "blocks.9.hook_resid_pre",
          "blocks.{l}.nope.hook_x", "blocks.{x}.attn.hook_z", "blocks.-1.hook_resid_pre", "{l}.hook_z", "norms[0]",
          "embedding[0]",
          "head_output[99,99]", "head_output[-1,0]", "head_output[]", "head_output[0", "head_output[x]",
          "value_vectors[352]",
          f"value_vectors[{'9' * 30}]", f"value_vectors[{'9' * 5000}]", "head_output[0,,]]", "mlp_coefficients+norms",
          "norms+block",
          "mlp_coefficients+", "+", "mlp_coefficients,nope", "blocks.{l}.hook_{l}", "blocks.{0}.hook_z")  # fmt: skip
OPTIONS: dict[tuple[str, str], tuple[str, ...]] = {
    ("dissect", "sites"): (*BROKEN, *EXPLODING),
    ("dissect", "windows"): ("x", "sliding:0", "sliding:-1", "sliding:x", "sliding:1.5", "sliding", "4-2", "0-99", "-1",
    "99", "single:3",
                             "0-", "-", "sliding:5,x", "0-" + "9" * 30, "9" * 5000, "sliding:" + "9" * 5000, "all:",
                             "1-2-3", "(0,3)"),
    ("dissect", "direction"): ("x", "after->after", "before", "before->after,after->before", "before-&gt;after", "->"),
    ("dissect", "positions"): ("x", "99999", "-99999", "1.5", "0,x", "all,answer", "0,99999", "9" * 30, "9" * 5000,
    "--1", "-", "²"),
    ("dissect", "metric"): ("x", "MSE", "mse,kl", "krs"),
    ("dissect", "tokenizer"): ("x", "organism", "both", "model/tokenizer.json"),
    ("dissect", "role"): ("x", "forget,near", "FORGET", "retain"),
    ("dissect", "prompts"): ("x", "held-out", "own,all"),
    ("dissect", "format"): ("x", "json", "csv", "question-answer", "multiple-choice", "counterfact", "conceptvectors"),
    ("dissect", "keys"): ("x", "letter", "number from 2"),
    ("dissect", "columns"): ("x", "prompt", "prompt=", "=x", "prompt=gone", "nope=prompt", "answer=answer",
    "prompt=prompt.x", ",", "==",
                             "prompt=distractors,fold=prompt", "prompt=prompt,prompt=gone",
                             "prompt=prompt,role=subject"),
    ("unlearn", "method"): ("x", "NPO", "npo ,dpo", "layered", "../npo", "npo()", "None"),
    ("unlearn", "set"): ("beta=0", "beta=-1", "beta=nan", "beta=NaN", "beta=Infinity", "beta=1e999", "beta=x",
    "beta=true", "beta=null", "beta=[1]",
                         'beta={"a":1}', 'beta="0.1"', "beta", "=1", "beta=", "nope=1", "beta.x=1", "retain=x",
                         "retain=1", "retain.x=1",
                         "retain_weight=x", "forget_weight=nan", ".=1", "beta==1", "beta=" + "[" * 9999,
                         "beta=" + "9" * 5000,
                         "beta=0.1;retain=kl", "name=x", "__class__=x", "retain=own", "text_weight=Infinity",
                         "beta=" + "9" * 400),
    ("unlearn", "layered"): ("0", "-1", "1.5", "x", "folds=0", "folds=nan", "folds=2,decay=2", "decay=nan", "order=[1]",
    "folds=2,stage_stop=x",
                             "stage_stop=2", "1000", "9" * 30, "nope=1", "method=5", "repeat=0", "[", "true", "null",
                             "folds=", "folds=true",
                             "folds=2,forget=x", "folds=3,retain=nan", "folds", "3"),
    ("unlearn", "budget"): ("nan", "-1", "x", "kl=nan", "kl=", "=1", "nope=1", "kl=x", "kl=true", "kl=null", "near=2",
    "far=1.5", "[]", "{}",
                            "kl=0.01,halvings=-1", "kl=1,halvings=1.5", "halvings=3", "inf", "kl=Infinity", "null",
                            "true", ",", "kl=1,,",
                            "1e999", "kl=" + "9" * 5000),
    ("unlearn", "stop"): ("nan", "2", "-1", "x", "inf", "Chance", "-0.1", "1.01", "chance,0.1"),
    ("unlearn", "learning-rate"): ("nan", "inf", "-inf", "-1", "0", "x", "", "1e999", "1,5", "1e300", "\udcff", "true"),
    ("unlearn", "optimizer"): ("x", "AdamW", "lion", "sgd,adam"),
    ("unlearn", "precision"): ("x", "fp16", "float32", "int8", "BF16"),
    ("unlearn", "trainable"): (*BROKEN, *EXPLODING, "mlp_coefficients", "residual", "value_vectors[3]",
    "blocks.{l}.hook_resid_pre"),
    ("unlearn", "accumulation"): ("3", "1000000000"),
    ("unlearn", "prompts"): ("x", "heldout"),
    ("unlearn", "dtype"): ("float16", "bfloat16", "int8"),
    ("unlearn", "batch-size"): ("9" * 19,),
    ("attack", "suite"): ("x", "quick,x", "quick,relearn", "default,", "steer", "interpolate", "ablate", ",", "Prompts",
    "prompts;noise",
                          "relearn(epochs=1)", "prompts,prompts,x"),
    ("attack", "never-knew"): ("gone", "./gone", "small", "facts.jsonl", "organism:nope", "text.txt", "runs",
    "/dev/zero", NAME),
    ("attack", "before"): ("gone", "small", "facts.jsonl", "organism:", ".", "/proc/self", "a/b/c",
    "https://example.org/model"),
    ("attack", "text"): ("gone.txt", ".", "organism:nope", "model/model.safetensors"),
    ("evaluate", "measures"): ("x", "recall,x", ",", "Recall", "text_loss", "text_kl", "recall;rank", "all", "rouge_l"),
    ("evaluate", "by"): ("x", "role,role", "role,x", ",", "Role", "fact", "correct", "measure", "subject,subject",
    "role;fold", "value"),
    ("evaluate", "before"): ("gone", "small", "facts.jsonl", "a//b", "-", "..", "organism/"),
    ("evaluate", "text"): ("gone.txt", ".", "organism:never-knew", "http://example.org/x.txt"),
    ("evaluate", "role"): ("x", "forget,far", "any"),
    ("evaluate", "prompts"): ("x", "ALL"),
    ("evaluate", "options"): ("1",),
    ("evaluate", "letters"): ("true",),
    ("report", "format"): ("x", "HTML", "pdf", "", " ", "html,md", "docx", "\udcff", LONG),
}  # fmt: skip
LINES: dict[str, str] = {
    "no-command": "nope", "empty-command": "''", "capital-command": "Dissect", "half-command": "\udcff",
    "option-alone": "--nope",
    "two-versions": "--version=1", "dash": "-", "short": "-x", "dissect-alone": "dissect",
    "dissect-one-model": "dissect organism",
    "dissect-no-facts": "dissect organism after --out out",
    "dissect-no-out": "dissect organism after --facts facts.jsonl",
    "dissect-three": "dissect organism after third --facts facts.jsonl --out out", "unlearn-alone": "unlearn",
    "unlearn-no-method": "unlearn organism --facts facts.jsonl --out out",
    "unlearn-no-out": "unlearn organism --facts facts.jsonl --method npo",
    "attack-alone": "attack", "attack-no-out": "attack after --facts facts.jsonl", "evaluate-alone": "evaluate",
    "evaluate-no-facts": "evaluate organism", "report-alone": "report", "report-two": "report after small",
    "organism-alone": "organism",
    "organism-nope": "organism nope", "organism-build-more": "organism build x", "demo-more": "demo x",
    "methods-more": "methods npo", "generations-none": "evaluate organism --facts facts.jsonl --measures rouge_l",
    "measures-option": "measures --all", "value-lacks": "dissect organism after --facts",
    "value-is-option": "report --out",
    "use-gone": "--use gone.py methods", "use-text": "--use text.txt methods", "use-folder": "--use model methods",
    "use-empty": "--use '' methods",
    "use-alone": "--use", "demo-seed": "demo --seed -1", "demo-seed-huge": "demo --seed " + "9" * 30,
    "build-seed": "organism build --seed x",
    "build-seed-huge": "organism build --seed " + "9" * 30, "demo-seed-word": "demo --seed x",
    "same-models": "dissect organism organism --facts facts.jsonl --out out",
    "letters-value": "evaluate organism --facts facts.jsonl --letters=maybe",
    "unlearn-two-models": "unlearn organism after --facts facts.jsonl --out out --method npo",
    "facts-alone": "evaluate organism --facts", "help-value": "--help=x",
    "typo": "disect organism after --facts facts.jsonl --out out",
    "typo-option": "dissect organism after --fact facts.jsonl --out out",
    "budget-unmeasured": "unlearn model --method npo --facts facts.jsonl --out out --budget 0.01",
    "cir-learning-rate": GOOD["unlearn"].replace("npo", "cir") + " --learning-rate 1e-4",
    "dpo-no-distractors": GOOD["unlearn"].replace("npo", "dpo").replace("facts.jsonl", "plain.jsonl"),
    "trainable-with-adapters": GOOD["unlearn"].replace("npo", "circuit_breakers") + " --trainable norms",
    "choice-options-endless": GOOD["evaluate"].replace("recall", "multiple_choice") + " --options " + "9" * 30,
    "generations-endless": GOOD["evaluate"].replace("recall",
    "rouge_l") + " --before after --max-new-tokens " + "9" * 30,
}  # fmt: skip
CHANGES: dict[str, tuple[str, ...]] = {  # settings of methods, beside npo's above
    "rmu": ("layer=99", "layer=-1", "vectors=x", "relative=NaN", "relative=0", "entries=x", "layer=middle",
    "layer=1.5"),
    "cir": ("objective=x", "objective=5", "objective=cir", "objective.nope=1", "activations=-1", "collapse=x",
    "step_norm=-1",
            "form=x", "statistics=x", "retain_rate=-1", "gradients=x", "faithful=1"),
    "circuit_breakers": ("lora_rank=0", "lora_rank=1000000000", "targets=[5,99]", "targets=[]", "lora_alpha=0",
    "targets=5"),
    "mlp_breaking": ("blocks=[-1,99]", "where=x", "form=x", "power=-1", "blocks=[3,1]", "floor=x"),
    "idk": ("refusals=[]", 'refusals=["\\u0020"]', "refusals=[1]", f'refusals=["{"x" * 9000}"]',
    'refusals=["\\ud800"]'),
    "simnpo": ("beta=0", "delta=x"), "undial": ("beta=Infinity", "beta=x"), "wga": ("beta=-1",),
}  # fmt: skip
NOT_BAD: set[str] = {
    *(f"{command}/device/cpu:3" for command in GOOD), "evaluate/before/small", "model/weights-huge", "line/same-models",
    "attack/suite/default,",
    "dissect/windows/sliding", "dissect/windows/all:", "evaluate/text/file-one-long-line", "facts-asked/30-megabytes",
    *(f"evaluate/by/{name}" for name in ("role,role", "fact", "subject,subject")),
    *(f"{name}/999999999999…(30)" for name in ("dissect/limit", "evaluate/limit", "evaluate/options")),
    *("evaluate/max-new-tokens/999999999999…(30)", "report/out/loop-of-links", "report/out/link-to-nowhere"),
    *(f"model/config-{name}" for name in ("eps-huge", "context-zero", "tied-with-head", "pad-negative", "dtype-number",
      "architectures-text", "quantised-fp8", "quantised-unknown")), "model/generation-config-broken",
    *(f"report/dissection/settings-{name}" for name in ("text", "null", "empty", "numbers", "nulls")),
    *("again/dissection/settings-text", "report/dissection/prompts-unknown",
      "report/dissection/answers-no-rows", "report/unlearning/notes-number"),
}  # fmt: skip
"""Accepted with a meaning that makes sense; kept here so that nobody adds them again."""
OUTS: dict[str, tuple[str, bad.Make]] = {
    "a-file": ("text.txt", bad.nothing), "below-a-file": ("text.txt/out", bad.nothing),
    "far-below-a-file": ("text.txt/a/b/out", bad.nothing),
    "proc": ("/proc/out", bad.nothing), "below-fifo": ("out/a", lambda: os.mkfifo("out")),
    "long-name": (NAME, bad.nothing), "long-path": ("/".join([NAME[:200]] * 40), bad.nothing),
    "nul": ("a\0b", bad.nothing),
    "empty": ("", bad.nothing), "here": (".", bad.nothing), "fifo": ("out", lambda: os.mkfifo("out")),
    "above": ("..", bad.nothing),
    "loop-of-links": ("out", lambda: Path("out").symlink_to("out")),
    "link-to-nowhere": ("out", lambda: Path("out").symlink_to("/proc/nope")),
    "foreign": ("out", lambda: (Path("out").mkdir(), bad.write("out/thesis.tex", "x")())),
    "checkpoint": ("model", bad.nothing),
    "sys": ("/sys/kernel/out", bad.nothing), "root-of-proc": ("/proc/self/fd/out", bad.nothing),
}  # fmt: skip


def with_option(line: str, option: str, value: str) -> tuple[str, ...]:
    """The good line with this option given, in place of the one there."""
    words = line.split()
    if f"--{option}" in words:
        at = words.index(f"--{option}")
        words[at : at + 2] = []
    return (*words, f"--{option}={value}")


def named(option: str, value: str) -> tuple[str, ...]:
    """What an answer about this option may say: its name, or a part of the value."""
    names = (
        option,
        option.rstrip("s"),
        option.replace("-", "_"),
        option.replace("-", " "),
        ascii(value)[1:-1][:20].strip(),
    )
    return (
        *names,
        value[:20].strip(),
        *re.findall(r"\w+", value[:60]),
        *(["facts.jsonl"] if option in ("format", "columns") else []),
    )


def option_cases() -> Iterator[Case]:
    def case(command: str, option: str, label: str, value: str) -> Case:
        line = GOOD.get(command, "report run")
        make = bad.taken("dissection", name="run") if command == "report" else bad.nothing
        return Case(f"{command}/{option}/{label}", with_option(line, option, value), make, named(option, value))

    for method, changes in CHANGES.items():
        for change in changes:
            line = with_option(GOOD["unlearn"].replace("npo", method), "set", change)
            yield Case(f"{method}/{short(change, 24)}", line, bad.nothing, named("set", change))
    for (command, option), values in OPTIONS.items():
        for value in values:
            yield case(command, option, short(value, 24), value)
    for command, options in WORDS.items():
        for option in options:
            for label, value in ODD.items():
                yield case(command, option, f"odd-{label}", value)
    for command, options in NUMBERS.items():
        for option in options:
            for value in WHOLES:
                if not (value == "0" and option == "seed"):
                    yield case(command, option, short(value, 24), value)
    for command in GOOD:
        some = slice(None) if command == "dissect" else slice(5)  # the same function reads them all
        for option, values in (("device", DEVICES[some]), ("dtype", DTYPES[some])):
            for value in (*values, *list(ODD.values())[some]):
                yield case(command, option, short(value, 24), value)


def line_cases() -> Iterator[Case]:
    plain = bad.facts(lambda rows: [row.pop("distractors") for row in rows], "plain.jsonl")
    for name, line in LINES.items():
        words = tuple("" if word == "''" else word for word in line.split())
        yield Case(f"line/{name}", words, plain if "plain.jsonl" in line else bad.nothing)


RUNS_AT = ("empty", "here", "above", "foreign", "checkpoint")  # places that the demo may put its folders into
LINKED = ("fifo", "below-fifo", "loop-of-links", "link-to-nowhere")


def out_cases() -> Iterator[Case]:
    for command, line in (GOOD | OUT_ONLY).items():
        for name, (out, make) in OUTS.items():
            if command == "demo" and name in RUNS_AT:
                continue
            tells = () if name in ("empty", "here", "above", "nul") else (Path(out).name[:100], "text.txt")
            yield Case(f"{command}/out/{name}", with_option(line, "out", out), make, tells)
        for kind in FRAMES:
            if kind != KIND.get(command) and command != "demo":
                yield Case(f"{command}/out/taken-by-{kind}", with_option(line, "out", "out"), bad.taken(kind), ("out",))
    for name, (out, make) in OUTS.items():
        if name not in ("a-file", "foreign", "checkpoint"):  # a page may be written over, or into a folder
            above = "../" if name in LINKED or "below-a-file" in name else ""  # a page's place counts from the run
            make_both = bad.both(bad.taken("dissection", name="run"), make)
            yield Case(f"report/out/{name}", ("report", "run", f"--out={above}{out}"), make_both)
    for command, kind in KIND.items():
        yield Case(f"{command}/out/other-settings", (*GOOD[command].split(), "--seed=7"), bad.taken(kind), ("out",))


def facts_tell(file: str) -> tuple[str, ...]:
    """The file; or a fact of it by its id, or its template, which every file of facts has its own."""
    return (Path(file).name, Path(file).stem, "fact 'alchemy", "template")


def file_cases() -> Iterator[Case]:
    for name, (file, make) in FACT_FILES.items():
        yield Case(f"facts/{name}", with_option(GOOD["unlearn"], "facts", file), make, facts_tell(file))
        if len(name) % 4 == 0:  # read by the same function: a part is enough
            yield Case(f"facts-asked/{name}", with_option(GOOD["evaluate"], "facts", file), make, facts_tell(file))
    for name, (file, make) in TEXT_FILES.items():
        for command, option in (("unlearn", "text"), ("unlearn", "retain-text"), ("evaluate", "text")):
            yield Case(
                f"{command}/{option}/file-{name}",
                with_option(GOOD[command], option, file),
                make,
                (Path(file).name, option),
            )
    for name, (file, content) in SETTINGS.items():
        given = ["method", "batch-size", "text", "retain-text", *(["steps"] if "steps" in name else [])]
        line = re.sub(rf" --({'|'.join(given)}) \S+", "", GOOD["unlearn"])
        yield Case(f"settings/{name}", with_option(line, "settings", file), bad.write(file, content))
    yield Case("settings/missing", with_option(GOOD["unlearn"], "settings", "gone.toml"), tells=("gone.toml",))
    for name in ("folder", "fifo", "endless", "loop-of-links"):
        file, make = FACT_FILES[name]
        yield Case(f"settings/{name}", with_option(GOOD["unlearn"], "settings", file), make, (Path(file).name,))


def model_cases() -> Iterator[Case]:
    for name, make in MODELS.items():
        line = GOOD["evaluate"].replace("organism", "./broken")
        yield Case(f"model/{name}", tuple(line.split()), make, ("broken", "context"))
    for name, make in CHATS.items():
        line = GOOD["evaluate"].replace("organism", "broken").replace("facts.jsonl", "chat.jsonl")
        yield Case(f"chat/{name}", tuple(line.split()), make, ("template", "chat"))
    for name, line in {
        "small-after": GOOD["dissect"].replace("after", "small"),
        "small-before": GOOD["dissect"].replace("organism", "small"),
        "cut-after": GOOD["dissect"].replace("after", "broken"),
        "cut-never-knew": GOOD["attack"] + " --never-knew broken",
        "cut-before": GOOD["evaluate"] + " --before broken",
    }.items():  # fmt: skip
        make = MODELS["weights-cut"] if "broken" in line else bad.nothing
        yield Case(f"pair/{name}", tuple(line.split()), make, ("broken", "layers", "before", "after"))
    yield Case(
        "pair/other-words",
        tuple(GOOD["dissect"].replace("after", "broken").split()),
        MODELS["config-vocab-less"],
        ("broken",),
    )


AGAIN = ("cut", "list", "deep", "no-kind", "kind-list", "about-list", "about-text", "settings-text", "empty", "missing",
         "other-columns", "folder")  # fmt: skip


def run_cases() -> Iterator[Case]:
    for kind, frames in FRAMES.items():
        again = tuple(GOOD[next(name for name, held in KIND.items() if held == kind)].split())
        yield Case(
            f"report/{kind}/changed-run",
            ("report", "out"),
            bad.taken(kind, RUN_JSONS["prompts-unknown"]),
            ("run.json",),
        )
        yield Case(
            f"report/{kind}/changed-frame",
            ("report", "out"),
            bad.taken(kind, FRAME_CHANGES["cut"]("frame")),
            ("frame",),
        )
        for name, change in RUN_JSONS.items():
            make = bad.taken(kind, bad.unsigned(), change)
            yield Case(f"report/{kind}/{name}", ("report", "out"), make, ("run.json", "out"))
            if name in AGAIN:
                yield Case(f"again/{kind}/{name}", again, make, ("run.json", "out"))
        for file in frames:
            for name, change in FRAME_CHANGES.items():
                make = bad.taken(kind, bad.unsigned(), change(file))
                yield Case(f"report/{kind}/{file}-{name}", ("report", "out"), make, (file, "out"))
                if name in AGAIN:
                    yield Case(f"again/{kind}/{file}-{name}", again, make, (file, "out"))
        for key, value in itertools.product(("settings", "versions"), ("x", [1], None)):
            change = bad.unfinished(bad.run_json(lambda held, key=key, value=value: held.update({key: value})))
            name = f"again/{kind}/unfinished-{key}-{type(value).__name__}"
            yield Case(name, again, bad.taken(kind, bad.unsigned(), change), ("run.json", "out"))
    for name, content in {"empty": b"", "random": bytes(range(256)), "no-note": bad.safetensors(b"{}")}.items():
        make = bad.taken("unlearning", bad.unsigned(), bad.unfinished(bad.write("out/state.safetensors", content)))
        yield Case(f"again/unlearning/state-{name}", tuple(GOOD["unlearn"].split()), make, ("state.safetensors",))
    for name, (folder, make) in {
        "missing": ("gone", bad.nothing), "a-file": ("text.txt", bad.nothing),
        "empty": ("out", lambda: Path("out").mkdir()),
        "foreign": ("model", bad.nothing), "fifo": ("out", lambda: os.mkfifo("out")), "nul": ("a\0b", bad.nothing),
        "long": (LONG, bad.nothing),
        "empty-name": ("", bad.nothing), "loop-of-links": ("out", lambda: Path("out").symlink_to("out")),
        "device": ("/dev/null", bad.nothing),
        "half": ("a\udcff", bad.nothing),
        "unfinished": ("out",
        bad.taken("dissection", bad.unsigned(), bad.unfinished(lambda: Path("out/frame.parquet").unlink()))),
        "half-unlearning": ("out", bad.taken("unlearning", bad.unsigned(), bad.unfinished())),
        "one-broken-of-two": ("all", lambda: (
            bad.taken("evaluation")(), bad.cut("out/run.json"), Path("all").mkdir(),
            bad.taken("attacks", name="all/a")(), Path("out").rename("all/b"))),
    }.items():  # fmt: skip
        yield Case(f"report/folder/{name}", ("report", folder), make)


def cases() -> list[Case]:
    """Every case, each with a name of its own."""
    found = [*line_cases(), *option_cases(), *out_cases(), *file_cases(), *model_cases(), *run_cases()]
    return list({case.name: case for case in found if case.name not in NOT_BAD}.values())
