"""`prosect verify`: exit code 0 on a ledger that holds, 1 on one that does not, 2 where there is none."""

import json

import pytest

from prosect.core.canonical import canonical_json, digest
from prosect.store.run import head_file
from tiny import call


def lines(run):
    return (run / "ledger.jsonl").read_bytes().splitlines(keepends=True)


def edited(raw):
    at = len(raw) // 2
    content = json.loads(raw[at])
    content["body"]["note"] = "better than it was"
    return [*raw[:at], canonical_json(content) + b"\n", *raw[at + 1 :]]


def inserted(raw):
    content = json.loads(raw[3])
    content.pop("hash")
    content["n"] = 4
    content["prev"] = json.loads(raw[3])["hash"]
    forged = canonical_json({**content, "hash": digest(content)}) + b"\n"
    return [*raw[:4], forged, *raw[4:]]


TAMPERINGS = {
    "edited": (edited, "was edited"),
    "deleted": (lambda raw: raw[:5] + raw[6:], "does not follow"),
    "inserted": (inserted, "does not follow"),
    "repeated": (lambda raw: [*raw[:4], raw[3], *raw[4:]], "does not follow"),
    "reordered": (lambda raw: [*raw[:2], raw[3], raw[2], *raw[4:]], "does not follow"),
    "lost tail": (lambda raw: raw[:-2], "deleted at the end"),
    "cut short": (lambda raw: [*raw[:-1], raw[-1][:-9]], "cut short"),
    "emptied": (lambda raw: [], "deleted at the end"),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_a_ledger_that_was_tampered_with(copy, capsys, name):
    change, why = TAMPERINGS[name]
    (copy / "ledger.jsonl").write_bytes(b"".join(change(lines(copy))))
    code, out, complaints = call(capsys, "verify", copy)
    assert (code, out) == (1, "")
    assert why in complaints and "Traceback" not in complaints
    assert call(capsys, "verify", copy, "--json")[0] == 1


def test_a_fresh_run_holds(finished, capsys):
    run, _ = finished
    code, out, complaints = call(capsys, "verify", run)
    assert (code, complaints) == (0, "")
    head = json.loads(head_file(run).read_bytes())
    assert head["head"] in out and f"{head['entries']} entries" in out
    assert "--head" in out  # what this cannot catch is said
    code, out, _ = call(capsys, "verify", run, "--json")
    (row,) = json.loads(out)
    assert (row["holds"], row["head"], row["entries"]) == (True, head["head"], head["entries"])


def test_against_a_published_head(finished, capsys):
    run, _ = finished
    head = json.loads(head_file(run).read_bytes())["head"]
    for given in (head, head[:8], head[:20].upper()):
        assert call(capsys, "verify", run, "--head", given)[0] == 0
    wrong = ("0" if head[0] != "0" else "1") + head[1:]
    code, _, complaints = call(capsys, "verify", run, "--head", wrong)
    assert code == 1 and "rewritten" in complaints
    code, _, complaints = call(capsys, "verify", run, "--head", head[:7])
    assert code == 2 and "8 hex digits" in complaints


def test_the_kept_head_is_missed(copy, capsys):
    head_file(copy).unlink()
    code, _, complaints = call(capsys, "verify", copy)
    assert code == 1 and "missing" in complaints


def test_where_there_is_no_run(tmp_path, capsys):
    for place in (tmp_path, tmp_path / "nowhere"):
        code, _, complaints = call(capsys, "verify", place)
        assert code == 2 and "expected a run folder" in complaints and "try prosect run" in complaints
