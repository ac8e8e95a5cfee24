"""The command line: it teaches, it calls the verbs, and a user's mistake is one line and exit code 2."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner, Result

import mechunlearn
from mechunlearn import dissection, reporting
from mechunlearn.cli import app, inputs, listing
from mechunlearn.facts import Facts

from .architectures import VOCABULARY, tiny
from .reporting import synthetic

WORDS = [*(f"w{i}" for i in range(VOCABULARY - 4)), "[unk]"]


def call(*args: object) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args], prog_name="mechunlearn")


def assert_one_line(result: Result, *parts: str, code: int = 2) -> None:
    assert result.exit_code == code, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("mechunlearn: "), result.stderr
    assert "Traceback" not in result.output
    for part in parts:
        assert part in lines[0]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints, a third that does not match, and facts."""
    base = tmp_path_factory.mktemp("cli")
    vocabulary = {"[pad]": 0, "<s>": 1, "</s>": 2} | {word: i for i, word in enumerate(WORDS, start=3)}
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="[unk]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="[pad]", bos_token="<s>", eos_token="</s>", unk_token="[unk]"
    )
    for folder, name, seed in (("before", "llama", 0), ("after", "llama", 1), ("other", "gpt2", 0)):
        tiny(name, seed).save_pretrained(base / folder)
        tokenizer.save_pretrained(base / folder)
    rows = [
        {"prompt": f"w{i} w{i + 1} w{i + 2}", "answer": f"w{i + 7}", "role": ("forget", "near", "far")[i % 3]}
        for i in range(12)
    ]
    (base / "facts.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (base / "bad.jsonl").write_text('{"prompt": "w1", "answer": "w2"}\n{"prompt": "w1", \n')
    (base / "plain.jsonl").write_text('{"prompt": "w1 w2", "answer": "w3"}')
    return base


def test_help_teaches_without_waiting_for_torch() -> None:
    code = (
        "import sys\nfrom mechunlearn.cli import app\n"
        "try: app(['--help'])\nexcept SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'transformers', 'pandas'} & set(sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    for word in ("mechunlearn demo", "--facts facts.jsonl", "dissect", "unlearn", "report", "organism", "prompt"):
        assert word in result.stdout


@pytest.mark.parametrize(
    "command", [["dissect"], ["unlearn"], ["methods"], ["report"], ["demo"], ["organism", "build"]]
)
def test_every_command_has_an_example(command: list[str]) -> None:
    result = call(*command, "--help")
    assert result.exit_code == 0 and "Example" in result.stdout
    assert f"mechunlearn {' '.join(command)}" in result.stdout.split("Example")[1]


def test_version_and_no_command() -> None:
    assert call("--version").stdout.strip() == f"mechunlearn {mechunlearn.__version__}"
    bare = call()
    assert bare.exit_code == 0 and "mechunlearn demo" in bare.stdout


def test_the_front_of_the_package_names_what_it_has() -> None:
    for name in mechunlearn.__all__:
        assert getattr(mechunlearn, name) is not None
    with pytest.raises(AttributeError, match="nonsense"):
        mechunlearn.nonsense  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["--nonsense"], ["--nonsense"]),
        (["explain"], ["explain"]),
        (["dissect"], ["BEFORE", "mechunlearn dissect --help"]),
        (["dissect", "a", "b", "--out", "x"], ["--facts"]),
        (["dissect", "a", "b", "--facts", "f"], ["--out"]),
        (["dissect", "a", "b", "--facts", "f", "--out", "x", "--seed", "much"], ["--seed", "integer"]),
        (["dissect", "a", "b", "--facts", "f", "--out", "x", "--limit", "0"], ["--limit"]),
        (["organism"], ["Missing command"]),
        (["report", "x", "y"], ["y"]),
    ],
)
def test_misuse_is_one_line(args: list[str], parts: list[str]) -> None:
    assert_one_line(call(*args), *parts)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"--facts": "missing.jsonl"}, ["missing.jsonl"]),
        ({"--facts": "bad.jsonl"}, ["bad.jsonl", "2"]),
        ({"--format": "xml"}, ["xml"]),
        ({"--role": "middle"}, ["middle", "forget, near, far, all"]),
        ({"--facts": "plain.jsonl", "--role": "forget"}, ["forget", "--role all"]),
        ({"--metric": "accuracy"}, ["accuracy", "mse_centred"]),
        ({"--sites": "mlp_brain"}, ["mlp_brain"]),
        ({"--sites": " , "}, ["empty list"]),
        ({"--positions": "0,,1"}, ["--positions", "empty name"]),
        ({"--windows": "rolling:3"}, ["rolling:3", "sliding:5"]),
        ({"--windows": "3-9"}, ["9", "layers 0 to 3"]),
        ({"--direction": "sideways"}, ["sideways"]),
        ({"--dtype": "float7"}, ["float7"]),
        ({"after": "nowhere"}, ["nowhere"]),
        ({"after": "other"}, ["ecture"]),
    ],
)
def test_bad_input_to_dissect(
    workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, str], parts: list[str]
) -> None:
    monkeypatch.chdir(workplace)
    before, after = options.pop("before", "before"), options.pop("after", "after")
    given = {"--facts": "facts.jsonl", "--out": str(tmp_path / "out")} | options
    result = call("dissect", f"./{before}", f"./{after}", *(part for pair in given.items() for part in pair))
    assert_one_line(result, *parts)
    assert not (tmp_path / "out").exists()


def test_bad_input_to_report_and_build(tmp_path: Path) -> None:
    assert_one_line(call("report", tmp_path / "missing"), "missing", "no such folder")
    assert_one_line(call("report", tmp_path), "no run folder")
    folder = synthetic.write_dissection(tmp_path / "run", table=synthetic.frame(3))
    (folder / "run.json").write_text("{")
    assert_one_line(call("report", folder), "run.json")
    assert_one_line(call("organism", "build", "--out", folder), "run.json")


def test_control_c_is_one_line_and_130(workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(dissection, "dissect", interrupted)
    monkeypatch.setattr(inputs, "check_there", lambda _: None)
    result = call("dissect", "a", "b", "--facts", workplace / "facts.jsonl", "--out", tmp_path / "out")
    assert_one_line(result, "interrupted", code=130)


def test_a_defect_of_ours_is_no_user_mistake(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(reporting, "report", broken)
    assert_one_line(call("report", tmp_path), "a defect of mechunlearn, ZeroDivisionError", "--traceback", code=70)
    assert isinstance(call("report", tmp_path, "--traceback").exception, ZeroDivisionError)


def test_options_of_dissect_arrive(workplace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    class StopError(Exception):
        pass

    def spy(before: str, after: str, facts: Facts, sites: list[str], **options: Any) -> None:
        seen.update(options, before=before, after=after, facts=facts, sites=sites)
        raise StopError

    monkeypatch.setattr(dissection, "dissect", spy)
    monkeypatch.setattr(inputs, "check_there", lambda _: None)
    call(
        *("dissect", "B", "A", "--facts", workplace / "facts.jsonl", "--out", tmp_path / "o"),
        *(
            "--sites",
            "norms, block",
            "--windows",
            "single,0-2",
            "--direction",
            "after->before",
            "--positions",
            "3,-1",
            "--tokenizer",
            "after",
        ),
        *("--device", "cpu", "--dtype", "bfloat16", "--seed", "4", "--limit", "2"),
        *("--prompts", "own", "--batch-size", "5", "--max-tokens", "99"),
    )
    facts = seen.pop("facts")
    assert [fact.role for fact in facts] == ["forget", "forget"]
    assert seen == {
        "before": "B",
        "after": "A",
        "sites": ["norms", "block"],
        "windows": ["single", "0-2"],
        "direction": "after->before",
        "positions": [3, -1],
        "prompts": "own",
        "tokenizer": "after",
        "batch_size": 5,
        "max_tokens": 99,
        "device": "cpu",
        "dtype": "bfloat16",
        "seed": 4,
        "run": tmp_path / "o",
        "name": None,
    }
    call("dissect", "B", "A", "--facts", workplace / "facts.jsonl", "--out", tmp_path / "o", "--role", "all")
    assert len(seen["facts"]) == 12 and seen["positions"] == "all" and seen["sites"] is None


def test_from_models_to_a_report(workplace: Path, tmp_path: Path) -> None:
    facts, text = workplace / "facts.jsonl", tmp_path / "text.txt"
    text.write_text("w1 w2 w3 w4\n\nw5 w6 w7\n")
    run = call(
        *("unlearn", workplace / "before", "--method", "npo", "--facts", facts, "--out", tmp_path / "run"),
        *("--steps", "2", "--text", text, "--device", "cpu"),
    )
    assert run.exit_code == 0, run.output
    assert "forget" in run.stdout and "mechunlearn dissect" in run.stdout
    again = [
        call(
            *("dissect", workplace / "before", tmp_path / "run" / "model", "--facts", facts),
            *("--out", tmp_path / "run" / "dissection", "--windows", "single,all", "--device", "cpu"),
        )
        for _ in range(2)
    ]
    assert again[0].exit_code == 0, again[0].output
    assert "4 of 12 facts" in again[0].stdout and "value_vectors" in again[0].stdout
    assert again[0].stdout == again[1].stdout
    clash = call(
        *("dissect", workplace / "before", tmp_path / "run" / "model", "--facts", facts, "--seed", "1"),
        *("--out", tmp_path / "run" / "dissection", "--windows", "single,all", "--device", "cpu"),
    )
    assert_one_line(clash, "other settings", "seed")
    page = call("report", tmp_path / "run", "--out", "page.html")
    assert page.exit_code == 0 and str(tmp_path / "run" / "page.html") in page.stdout
    source = (tmp_path / "run" / "page.html").read_text(encoding="utf-8")
    assert "Unlearning: run" in source and "Dissection: dissection" in source


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("dissect organsm organism --facts organism --out o", "organsm: no such folder here.*Did you mean organism"),
        ("dissect organism ./none --facts organism --out o", "./none: no such folder"),
        ("dissect organism organism --facts half.csv --out o", "half.csv, line 2: the field 'answer' is missing"),
        ("unlearn organism --method nppo --facts organism --out o", "method 'nppo': .*Did you mean npo"),
        ("unlearn nobody/nothing --method npo --facts organism --out o", "nobody/nothing: no such folder here"),
        (
            "attack organism --never-knew organism:never-new --facts organism --out o",
            "'organism:never-new': no such folder.*Did you mean organism:never-knew",
        ),
        ("evaluate organism --facts none.jsonl", "there is no file none.jsonl"),
    ],
)
def test_what_is_wrong_is_said_before_torch_is_imported(line: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "half.csv").write_text("prompt,other\na,b\n")
    code = (
        "import sys; from mechunlearn.cli import app\n"
        "try: app(sys.argv[1:], prog_name='mechunlearn')\n"
        "except SystemExit as end: print(end.code, *({'torch', 'transformers'} & set(sys.modules)))"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, *line.split()], capture_output=True, text=True, cwd=tmp_path, check=False,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )  # fmt: skip
    assert re.search(f"^mechunlearn: {said}", told.stderr.splitlines()[-1]), told.stderr
    assert told.stdout.split() == ["2"]
    assert [path.name for path in tmp_path.iterdir()] == ["half.csv"]


def test_python_m_is_the_same_command(tmp_path: Path) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "mechunlearn", "methods"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert told.stdout == listing.KEPT.read_text() and not told.stderr
