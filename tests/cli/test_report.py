"""`prosect report`: the page again, to the byte, from records alone."""

import json

from tiny import call, files, spawn


def test_the_page_is_rebuilt_to_the_byte_without_torch(copy):
    before = files(copy)
    (copy / "report.html").unlink()
    code = (
        "import sys\nfrom prosect.cli import main\ncode = main(['report', sys.argv[1]])\n"
        "bad = [m for m in ('torch', 'transformers', 'sklearn', 'interp_engine') if m in sys.modules]\n"
        "sys.exit(', '.join(bad) or code)"
    )
    process = spawn(copy, code=code)
    out, complaints = process.communicate(timeout=120)
    assert process.returncode == 0, complaints
    assert out.strip() == str(copy / "report.html")
    assert files(copy) == before


def test_the_page_does_not_depend_on_where_the_run_lies(finished, copy, capsys):
    assert call(capsys, "report", copy)[0] == 0
    assert (copy / "report.html").read_bytes() == (finished[0] / "report.html").read_bytes()


def test_nothing_is_drawn_of_a_ledger_that_does_not_hold(copy, capsys):
    page = (copy / "report.html").read_bytes()
    raw = (copy / "ledger.jsonl").read_bytes().splitlines(keepends=True)
    (copy / "ledger.jsonl").write_bytes(b"".join(raw[:-1]))
    code, out, complaints = call(capsys, "report", copy)
    assert (code, out) == (1, "") and "no report was made" in complaints
    assert (copy / "report.html").read_bytes() == page


def test_where_there_is_no_run(tmp_path, capsys):
    code, _, complaints = call(capsys, "report", tmp_path)
    assert code == 2 and "run.json" in complaints and "try prosect run" in complaints
    assert list(tmp_path.iterdir()) == []


def test_a_run_of_a_newer_prosect(copy, capsys):
    header = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**header, "schema": 99}))
    page = (copy / "report.html").read_bytes()
    code, _, complaints = call(capsys, "report", copy)
    assert code == 2 and "schema 99" in complaints and "a newer prosect" in complaints
    assert (copy / "report.html").read_bytes() == page
