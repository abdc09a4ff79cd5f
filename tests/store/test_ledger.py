"""The ledger: every tampering is found, crashes are repaired, replays are checked."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from claims import evidence, family, hypothesis
from prosect.core.canonical import canonical_json, digest
from prosect.core.errors import BadInput, Conflict, VerificationFailed
from prosect.core.records import Note, Opening
from prosect.store.ledger import Ledger, parse, read
from prosect.store.run import RunFolder, head_file
from prosect.store.verify import verify

H = [hypothesis(i) for i in range(3)]
RECORDS = [
    *H,
    family(1, *H),
    Opening(fold="validate.0", data="d" * 64, round=1, hypotheses=3),
    *[evidence(h) for h in H],
    Note(about="end", text="done"),
]


def make(folder, records=RECORDS, finish=True):
    with RunFolder.open(folder, {"a": 1}, {"versions": {}}) as run:
        run.append(*records[:3])
        run.append(*records[3:])
        if finish:
            run.finish({"n": 1})
    return folder


@pytest.fixture
def run(tmp_path):
    return make(tmp_path / "run")


def lines(run):
    return (run / "ledger.jsonl").read_bytes().splitlines(keepends=True)


def rewrite(run, changed):
    (run / "ledger.jsonl").write_bytes(b"".join(changed))


def test_a_whole_ledger_holds(run):
    head = verify(run)
    assert head.count == len(RECORDS)
    assert verify(run, head.hash[:12]) == head
    assert list(read(run / "ledger.jsonl")) == RECORDS


@pytest.mark.parametrize("n", range(len(RECORDS)))
def test_every_deletion_is_found(run, n):
    kept = lines(run)
    rewrite(run, kept[:n] + kept[n + 1 :])
    with pytest.raises(VerificationFailed):
        verify(run)


@pytest.mark.parametrize("n", range(len(RECORDS)))
def test_every_edit_is_found(run, n):
    changed = lines(run)
    content = json.loads(changed[n])
    content["body"]["edited"] = True
    changed[n] = canonical_json(content) + b"\n"
    rewrite(run, changed)
    with pytest.raises(VerificationFailed, match=f"line {n + 1} was edited"):
        verify(run)


def rechain(raw):
    """What a careful forger would do: recompute every hash."""
    out, prev = [], "0" * 64
    for n, line in enumerate(raw):
        content = json.loads(line)
        content.pop("hash")
        content.update(n=n, prev=prev)
        prev = digest(content)
        out.append(canonical_json({**content, "hash": prev}) + b"\n")
    return out


def test_a_rechained_ledger_is_found_by_the_head_beside_the_run(run):
    raw = lines(run)
    content = json.loads(raw[5])
    content["body"]["p"] = 1e-9
    raw[5] = canonical_json(content) + b"\n"
    rewrite(run, rechain(raw))
    with pytest.raises(VerificationFailed, match="rewritten"):
        verify(run)


def test_a_full_rewrite_is_caught_only_by_a_published_head(run):
    published = verify(run).hash
    raw = rechain([*lines(run)[:5], *lines(run)[6:]])
    rewrite(run, raw)
    head = json.loads(raw[-1])["hash"]
    for path in (head_file(run), run / "done.json"):
        path.write_bytes(canonical_json({"schema": 1, "entries": len(raw), "head": head}))
    verify(run)  # nothing in the folder can tell
    with pytest.raises(VerificationFailed, match="rewritten"):
        verify(run, published)


@pytest.mark.parametrize("i", range(len(RECORDS) - 1))
def test_swapped_and_repeated_lines_are_found(run, i):
    raw = lines(run)
    rewrite(run, [*raw[:i], raw[i + 1], raw[i], *raw[i + 2 :]])
    with pytest.raises(VerificationFailed):
        verify(run)
    rewrite(run, [*raw[: i + 1], *raw[i:]])
    with pytest.raises(VerificationFailed):
        verify(run)


def test_lines_added_after_the_end_are_found(run):
    with pytest.raises(VerificationFailed, match="does not follow"):
        rewrite(run, [*lines(run), lines(run)[-1]])
        verify(run)


def test_a_missing_head_file_is_found(run):
    head_file(run).unlink()
    with pytest.raises(VerificationFailed, match="missing"):
        verify(run)


def test_a_short_head_means_nothing(run):
    with pytest.raises(BadInput, match="8 hex digits"):
        verify(run, "ab")


def test_a_folder_without_ledger_is_bad_input(tmp_path):
    with pytest.raises(BadInput, match=r"ledger\.jsonl"):
        verify(tmp_path)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 20_000))
def test_a_crash_at_any_byte_resumes_to_the_same_ledger(tmp_path_factory, cut):
    whole = make(tmp_path_factory.mktemp("a") / "run")
    folder = tmp_path_factory.mktemp("b") / "run"
    make(folder, finish=False)
    data = (whole / "ledger.jsonl").read_bytes()
    (folder / "ledger.jsonl").write_bytes(data[: cut % (len(data) + 1)])
    head_file(folder).unlink()
    make(folder)
    assert (folder / "ledger.jsonl").read_bytes() == data
    assert verify(folder) == verify(whole)


def test_a_torn_line_is_repaired_and_said(tmp_path):
    folder = make(tmp_path / "run", RECORDS[:4], finish=False)
    with (folder / "ledger.jsonl").open("ab") as file:
        file.write(b'{"n":4,"prev":"')
    make(folder)
    assert (folder / "repairs.jsonl").exists()
    assert verify(folder).count == len(RECORDS)


@pytest.mark.parametrize("kept", [0, 3, len(RECORDS) - 1])
def test_a_crash_between_the_last_line_and_its_head_ends_in_a_ledger_that_holds(tmp_path, kept):
    folder = make(tmp_path / "run", finish=False)
    beside = head_file(folder)
    hashes = [json.loads(line)["hash"] for line in lines(folder)]
    beside.write_text(json.dumps({"entries": kept, "head": hashes[kept - 1] if kept else "0" * 64}))
    make(folder)
    assert verify(folder).count == len(RECORDS)
    assert json.loads(beside.read_text())["entries"] == len(RECORDS)


def test_a_finished_ledger_with_a_torn_tail_does_not_hold(run):
    with (run / "ledger.jsonl").open("ab") as file:
        file.write(b"{")
    with pytest.raises(VerificationFailed, match="cut short"):
        verify(run)


def test_a_replay_that_differs_is_refused(tmp_path):
    folder = make(tmp_path / "run", finish=False)
    with RunFolder.open(folder, {"a": 1}, {"versions": {}}) as run, pytest.raises(Conflict, match="line 1"):
        run.append(hypothesis(9))


def test_records_seen_during_a_replay_are_those_replayed(tmp_path):
    folder = make(tmp_path / "run", finish=False)
    ledger = Ledger(folder / "ledger.jsonl", head_file(folder))
    assert ledger.records == []
    ledger.append(*RECORDS[:2])
    assert ledger.records == RECORDS[:2]
    assert not ledger.replayed
    ledger.continue_after_end()
    assert len(ledger.records) == len(RECORDS)


def bad(tmp_path, records, match):
    folder = make(tmp_path / "bad", records, finish=False)
    assert parse(folder / "ledger.jsonl")[0]
    with pytest.raises(VerificationFailed, match=match):
        verify(folder)


def test_rules_of_order(tmp_path):
    opening = Opening(fold="validate.0", data="d" * 64, round=1, hypotheses=3)
    bad(tmp_path / "1", [H[0], opening, evidence(H[0])], "before its family")
    bad(tmp_path / "2", [H[0], family(1, H[0]), evidence(H[0])], "was not opened")
    bad(tmp_path / "3", [H[0], H[1], family(1, H[0])], "leaves out")
    bad(tmp_path / "4", [family(1, H[0])], "not registered")
    bad(tmp_path / "5", [H[0], H[0]], "registered twice")
    bad(tmp_path / "6", [hypothesis(parent="f" * 16)], "names a parent")
    bad(tmp_path / "7", [H[0], family(1, H[0]), opening, evidence(H[0]), evidence(H[0])], "tested twice")
    bad(tmp_path / "8", [H[0], family(1, H[0]), opening, evidence(H[0], "other")], "never registered")


def test_a_lineage_opens_a_fold_once(tmp_path):
    from claims import plan

    child = hypothesis(0, round=2, parent=H[0].id, tests=(plan(fold="validate.0"),))
    bad(tmp_path, [H[0], family(1, H[0]), child], "already opened")


def test_a_crash_in_a_run_leaves_a_ledger_that_verifies(tmp_path):
    folder = make(tmp_path / "run", RECORDS[:5], finish=False)
    assert verify(folder).count == 5
