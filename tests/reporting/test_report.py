"""The page: complete, closed to the network, and deaf to what users wrote in their facts."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from mechunlearn.errors import UserError
from mechunlearn.reporting import report

from . import synthetic

HOSTILE = [
    "<script>document.title = 'owned'</script>",
    "</script><script>document.title = 'owned'</script><!--",
    '"><img src=x onerror="document.title=\'owned\'">',
    "'; document.title='owned'; //",
    "{{ 7 * 7 }} {% raw %}",
    "שלום عربي \u202e overridden",
    "👩‍🔬 e\u0301 \u0000 \u2028",
    "long " * 2000,
    "<svg onload=\"document.title='owned'\"><animate onbegin=\"document.title='owned'\"/></svg>",
    "<iframe srcdoc=\"<script>parent.document.title='owned'</script>\"></iframe>",
    "<a href=\"javascript:document.title='owned'\" autofocus onfocus=\"document.title='owned'\">a</a>",
    "<meta http-equiv=refresh content='0;url=http://127.0.0.1:9/owned'><base href='http://127.0.0.1:9/'>",
    "<style>@import 'http://127.0.0.1:9/owned.css'; body { background: url(http://127.0.0.1:9/owned) }</style>",
    "<link rel=stylesheet href=http://127.0.0.1:9/owned.css><img src=http://127.0.0.1:9/owned.png>",
    "<math><mtext></p><img src=x onerror=\"document.title='owned'\"></mtext></math>",
    "<details open ontoggle=\"document.title='owned'\"><video src=x onerror=\"document.title='owned'\"></details>",
    "<object data=\"data:text/html,<script>parent.document.title='owned'</script>\"></object>",
    "]]></textarea></title></style></template><script>document.title='owned'</script>",
    "\\u003cscript\\u003edocument.title='owned'\\u003c/script\\u003e &lt;script&gt;owned&lt;/script&gt;",
    "${document.title='owned'} `+(document.title='owned')+` %{customdata} <b onmouseover=document.title='owned'>b</b>",
]


class Page(HTMLParser):
    """Tags, their attributes, the text, and the contents of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self.inside.pop()

    def handle_data(self, data: str) -> None:
        if "script" in self.inside:
            self.scripts.append((self.tags[-1][1], data))
        elif not self.inside:
            self.text.append(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two methods: one plain; one with hostile facts, both directions, maps and a failing control."""
    base = tmp_path_factory.mktemp("runs")
    synthetic.write_unlearning(base / "gradient_difference")
    synthetic.write_dissection(base / "gradient_difference" / "dissection", table=synthetic.frame(60))
    table = synthetic.frame(8, directions=("before->after", "after->before"), positions=True, wild=True)
    table["site"] = table["site"].replace({"mlp_keys": HOSTILE[2]})
    table["token"] = table["token"].replace({"capital": HOSTILE[1]})
    synthetic.write_dissection(
        base / "npo" / "dissection",
        table=table,
        failing=True,
        hostile=HOSTILE,
        before=HOSTILE[0],
        question=HOSTILE[1],
        settings={HOSTILE[0]: HOSTILE[2]},
    )
    report(base)
    return base


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_it_answers_in_words_first(page: Page) -> None:
    text = " ".join(" ".join(page.text).split())
    text = text[text.index("The answer in words") :]  # behind the list of contents
    order = ["How to read recovery", "What this does and does not show", "Dissection: gradient_difference/dissection",
             "The answer can be put back", "Which facts came back", "Controls: 3 of 3 passed",
             "Behaviour before", "Noise floor", "2 of 57 tensors differ", "Dissection: npo/dissection",
             "Controls: 2 of 3 passed", "Unlearning: gradient_difference"]  # fmt: skip
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    assert "1 of 3 controls failed: empty window" in text
    assert "all layers at once mlp_coefficients+attention_output mse – 0.97 – measured" in text
    assert "windows sliding(5), single, all" in text
    assert "arXiv 2410.06606" in text and "2.13.0" in text


def test_figures_carry_the_numbers(page: Page) -> None:
    held = [json.loads(text) for attributes, text in page.scripts if attributes.get("type")]
    figures = [found for found in held if "data" in found]
    assert len(figures) == sum(tag == "figure" for tag, _ in page.tags)
    names = {trace.get("name") for figure in figures for trace in figure["data"]}
    assert {"MLP coefficients", "value vectors", "forget", "near"} <= names
    assert any(trace["type"] == "heatmap" for figure in figures for trace in figure["data"])


def test_nothing_is_loaded_from_anywhere(page: Page) -> None:
    loading = {"src", "srcset", "href", "data", "action", "poster", "background", "formaction"}
    found = [(tag, key, value) for tag, attributes in page.tags for key, value in attributes.items() if key in loading]
    assert all(tag == "a" and str(value).startswith("#") for tag, _, value in found)
    assert not {tag for tag, _ in page.tags} & {"link", "iframe", "object", "embed", "base", "form", "img"}
    style = next(part for part in (Path(__file__).parents[2] / "mechunlearn" / "reporting" / "writers").glob("*.css"))
    assert "url(" not in style.read_text() and "@import" not in style.read_text()
    policy = next(a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'")
    assert "'unsafe-inline'" not in policy.split("style-src")[0]


def test_text_of_users_stays_text(page: Page, folder: Path) -> None:
    tags = [tag for tag, _ in page.tags]
    tables = [attributes for _, attributes in page.tags if attributes.get("class") == "facts-of"]
    assert tags.count("script") == tags.count("figure") + len(tables) + 3
    assert not any(key.startswith("on") for _, attributes in page.tags for key in attributes)
    source = (folder / "report.html").read_text(encoding="utf-8")
    for text in HOSTILE[:3]:
        assert text not in source
        assert html.escape(text) in source.replace("&#34;", "&quot;").replace("&#39;", "&#x27;")
    shown = "".join(page.text)
    assert HOSTILE[1] in shown and "{{ 7 * 7 }}" in shown and "עربي"[1:] in shown
    assert "(10,000 characters)" in shown and "long " * 200 not in shown


def test_a_single_run_and_another_file(tmp_path: Path) -> None:
    synthetic.write_dissection(tmp_path / "one", table=synthetic.frame(5))
    target = tmp_path / "elsewhere" / "page.html"
    assert report(tmp_path / "one", target) == target
    assert "one" in target.read_text(encoding="utf-8")
    assert [path.name for path in target.parent.iterdir()] == ["page.html"]


def test_what_is_not_known_is_said(tmp_path: Path) -> None:
    synthetic.write_unlearning(tmp_path)
    text = report(tmp_path).read_text(encoding="utf-8")
    assert "Nothing was dissected" in text and "No attack was run" in text
    assert "Recall of the facts to forget from 100.0% to 1.8%" in text and "asked in held-out phrasings." in text
    assert "KL of 0.0491 nats" in text
    assert "The loss on general text rose by 4.9%" in text and "not specific" not in text


def test_unlearning_that_was_not_specific_is_warned_of(tmp_path: Path) -> None:
    run = synthetic.write_unlearning(tmp_path)
    frame = pd.read_parquet(run / "frame.parquet")
    frame.loc[frame.index[-1], ["near_recall", "text_loss"]] = [0.89, 2.02]
    frame.to_parquet(run / "frame.parquet")
    text = report(run).read_text(encoding="utf-8")
    assert "Recall of near facts fell below 90% of what it was" in text and "general text rose" not in text


def test_a_layered_run_is_told_once_and_a_half_finished_one_not_at_all(tmp_path: Path) -> None:
    run = synthetic.write_unlearning(tmp_path / "layered")
    synthetic.write_unlearning(run / "stages" / "1")
    half = synthetic.write_unlearning(tmp_path / "half")
    content = json.loads((half / "run.json").read_text())
    (half / "run.json").write_text(json.dumps(content | {"about": {}}))
    source = report(tmp_path).read_text(encoding="utf-8")
    assert source.count("<h2>Unlearning: ") == 1 and "<h2>Unlearning: layered" in source
    assert "half (not finished)" in source
    assert (
        "all steps done" in source and "&lt;" not in source.split("<h2>Unlearning: layered")[1].split("</section>")[0]
    )


def test_undefined_everywhere(tmp_path: Path) -> None:
    synthetic.write_dissection(tmp_path, table=synthetic.frame(4, undefined=4))
    text = " ".join(Page(report(tmp_path).read_text(encoding="utf-8")).text)
    assert "Undefined: on these facts" in text and not re.search(r"\bnan\b", text)


def test_unfinished_and_other_runs_are_named(tmp_path: Path) -> None:
    synthetic.write_dissection(tmp_path / "done", table=synthetic.frame(3))
    (synthetic.write_dissection(tmp_path / "begun", table=synthetic.frame(3)) / "frame.parquet").unlink()
    (tmp_path / "attack").mkdir()
    (tmp_path / "attack" / "run.json").write_text('{"kind": "attack"}')
    text = " ".join(Page(report(tmp_path).read_text(encoding="utf-8")).text)
    assert "begun (not finished)" in text and "attack (attack)" in text


def broken(tmp_path: Path, file: str, content: bytes | None) -> Path:
    folder = synthetic.write_dissection(tmp_path / "run", table=synthetic.frame(3))
    (folder / file).unlink() if content is None else (folder / file).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("run.json", b'{"kind": "dissec', "run.json"),
        ("run.json", b"[1]", "run.json"),
        ("run.json", b"\xff\xfe", "run.json"),
        ("run.json", b'{"kind": "dissection"}', "not finished"),
        ("run.json", b'{"kind": "dissection", "about": {"seed": "x"}}', "cannot be told"),
        ("run.json", b'{"kind": "attack"}', "attack"),
        ("frame.parquet", b"PAR1 and then nothing", "frame.parquet"),
        ("frame.parquet", None, "not finished"),
        ("facts.parquet", None, "facts.parquet"),
        ("answers.parquet", None, "answers.parquet"),
        ("controls.parquet", b"", "controls.parquet"),
    ],
)
def test_broken_runs_are_named(tmp_path: Path, file: str, content: bytes | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        report(broken(tmp_path, file, content))
    assert not (tmp_path / "run" / "report.html").exists()


def test_frames_of_something_else_are_named(tmp_path: Path) -> None:
    folder = synthetic.write_dissection(tmp_path, table=synthetic.frame(3))
    pd.DataFrame({"fact": ["0"]}).to_parquet(folder / "frame.parquet")
    with pytest.raises(UserError, match=r"frame\.parquet: no column site"):
        report(folder)
    synthetic.frame(3).iloc[:0].to_parquet(folder / "frame.parquet")
    with pytest.raises(UserError, match=r"frame\.parquet: has no rows"):
        report(folder)


def test_nothing_to_report(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        report(tmp_path / "missing")
    with pytest.raises(UserError, match="no run folder"):
        report(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="not a folder"):
        report(tmp_path / "file")
