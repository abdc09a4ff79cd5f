"""Nothing in a run can act: it is text, its files stay inside, and the page fetches and runs nothing else."""

import base64
import hashlib
import json
import re
import unicodedata

import pytest
from fabricate import HOSTILE, fabricate
from reader import read_page

from conftest import RUNS
from prosect.core.errors import BadInput, NewerSchema, UnsafeFile
from prosect.report import build
from prosect.report.text import prose, visible

TAGS = {
    "root", "html", "head", "meta", "title", "link", "style", "script", "body", "header", "main", "nav", "section",
    "h1", "h2", "h3", "h4", "h5", "p", "a", "b", "i", "em", "strong", "span", "bdi", "br", "code", "pre", "kbd",
    "ul", "ol", "li", "dl", "dt", "dd", "div", "figure", "figcaption", "table", "caption", "thead", "tbody", "tr",
    "th", "td", "details", "summary", "form", "label", "input", "select", "option", "button", "output",
    "svg", "defs", "pattern", "rect", "path", "circle", "text", "g",
}  # fmt: skip
INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069\ufeff]"
)


def digest_of(text):
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def check_inert(html):
    page = read_page(html)
    assert {n.tag for n in page.walk()} <= TAGS
    for node in page.walk():
        for name, value in node.attributes.items():
            assert not name.startswith("on"), (node.tag, name)
            assert name not in (
                "style",
                "src",
                "srcset",
                "srcdoc",
                "action",
                "formaction",
                "ping",
                "xlink:href",
            )
            if name == "href":
                assert value.startswith("#") or (node.tag, value) == ("link", "data:,")
    policy = page.one("meta", http_equiv="Content-Security-Policy").attributes["content"]
    rules = dict(r.strip().split(" ", 1) for r in policy.split(";"))
    assert rules == {
        "default-src": "'none'",
        "style-src": f"'{digest_of(page.one('style').text)}'",
        "script-src": f"'{digest_of(page.one('script').text)}'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    head = page.one("head")
    assert [n.tag for n in head.children if not isinstance(n, str)].index(
        "style"
    ) > 1  # the policy comes first
    assert not INVISIBLE.search(html)
    return page


@pytest.mark.parametrize("name", sorted(RUNS))
def test_pages_are_inert(pages, name):
    check_inert(pages(name)[0])


def test_hostile_text_is_shown_as_text(pages):
    html, page = pages("hostile")
    assert "<script>alert" not in html and "onerror=alert(2)>" not in html
    said = page.words
    for text in (
        "<script>alert(1)</script>",
        "</script><img src=x onerror=alert(2)>",
        "\"quotes' & <b>angles</b> -->",
    ):
        assert text in said
    assert "{{ 7*7 }} {% raw %}" in said
    assert "⟨U+202E⟩right to left override⟨U+202C⟩" in said
    assert "null␀bell␇escape␛[31mred" in said


@pytest.mark.parametrize(
    "name", ['x" onclick="alert(1)', "</details><script>", "../../etc", "\u202eabc", "עברית", ""]
)
def test_hostile_names_make_no_attribute_and_no_path(tmp_path, name):
    run = fabricate(
        tmp_path / "run", latents=2, heads=0, neurons=0, rounds=1, rich=False, decomposition=name or "--"
    )
    page = check_inert(build(run).read_text(encoding="utf-8"))
    cards = page.one("div", id="cards").all(None, "card")
    assert len(cards) == 2
    assert all(re.fullmatch(r"[A-Za-z0-9.-]+", c.attributes["id"]) for c in cards)


def test_a_name_cannot_take_an_address_of_the_page(tmp_path):
    run = fabricate(tmp_path / "run", latents=1, heads=0, neurons=0, rounds=1, rich=False)
    path = next((run / "exhibits").iterdir())
    content = json.loads(path.read_text())
    for n, name in enumerate(("tool-bar@", "failed", "h0123456789abcdef")):
        content["component"] = {**content["component"], "decomposition": name}
        (run / "exhibits" / f"{n}.json").write_text(json.dumps(content))
    page = check_inert(build(run).read_text(encoding="utf-8"))
    ids = [n.attributes["id"] for n in page.walk() if "id" in n.attributes]
    assert len(ids) == len(set(ids))
    assert sum("brief" in c.classes or c.tag == "details" for c in page.all(None, "card")) == 4


def test_names_that_make_one_slug_keep_two_addresses(tmp_path):
    run = fabricate(tmp_path / "run", latents=1, heads=0, neurons=0, rounds=1, rich=False)
    path = next((run / "exhibits").iterdir())
    content = json.loads(path.read_text())
    for n, name in enumerate(("a b", "a/b", "a_b")):
        content["component"] = {**content["component"], "decomposition": name}
        (run / "exhibits" / f"{n}.json").write_text(json.dumps(content))
    page = read_page(build(run).read_text(encoding="utf-8"))
    assert len({c.attributes["id"] for c in page.all(None, "card")}) == 4


@pytest.mark.parametrize("text", HOSTILE)
def test_cleaning_leaves_nothing_that_acts(text):
    for said in (prose(text), visible(text)):
        assert not INVISIBLE.search(said) and said


def test_tokens_show_their_white_space():
    assert visible(" a\n\tb") == "·a⏎→b"
    assert visible("") == "∅"
    assert visible("\u0301") == "◌\u0301"
    assert visible("\xa0") == "⟨U+00A0⟩"
    assert visible("é漢") == "é漢"
    assert prose("  two\n lines ") == "two lines"
    assert prose("x" * 700, 10) == "xxxxxxxxxx… (700 characters)"
    assert prose("\ud800") == "⟨U+D800⟩"


@pytest.mark.parametrize("name", ["findings.json", "metrics.json", "exhibits"])
def test_links_out_of_the_folder_are_refused(copy, tmp_path, name):
    run = copy("slight")
    outside = tmp_path / "outside"
    (run / name).rename(outside)
    (run / name).symlink_to(outside)
    with pytest.raises(UnsafeFile):
        build(run)


def test_one_linked_exhibit_is_refused(copy, tmp_path):
    run = copy("slight")
    path = sorted((run / "exhibits").iterdir())[0]
    path.rename(tmp_path / "outside.json")
    path.symlink_to(tmp_path / "outside.json")
    with pytest.raises(UnsafeFile):
        build(run)


@pytest.mark.parametrize("name", ["findings.json", "metrics.json", "run.json", "exhibits"])
def test_malformed_files_are_named_and_nothing_is_written(copy, name):
    run = copy("slight")
    (run / "report.html").write_text("before")
    path = run / name if name.endswith(".json") else sorted((run / name).iterdir())[0]
    path.write_text('{"broken')
    with pytest.raises(BadInput, match=re.escape(path.name)):
        build(run)
    assert (run / "report.html").read_text() == "before"


def test_unknown_fields_and_two_exhibits_of_one_component_are_refused(copy):
    run = copy("slight")
    first, second = sorted((run / "exhibits").iterdir())[:2]
    second.write_bytes(first.read_bytes())
    with pytest.raises(BadInput, match="two exhibits"):
        build(run)
    second.write_text(json.dumps({**json.loads(first.read_text()), "script": "alert(1)"}))
    with pytest.raises(BadInput, match="script"):
        build(run)


def test_a_newer_run_and_a_folder_that_is_none_are_refused(copy, tmp_path):
    run = copy("empty")
    header = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**header, "schema": 99}))
    with pytest.raises(NewerSchema):
        build(run)
    with pytest.raises(BadInput, match=r"run\.json"):
        build(tmp_path)


def test_nothing_printable_is_hidden():
    """The short way through `prose` rests on this."""
    printable = "".join(c for c in map(chr, range(0x110000)) if c.isprintable())
    assert prose(printable, len(printable)) == " ".join(printable.split())
    assert not {unicodedata.category(c) for c in printable} & {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
