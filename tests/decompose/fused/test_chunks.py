"""Sums in chunks are the sums, and every row of the result is written once, before it is read."""

import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from prosect.decompose.fused.chunks import chunked, ends_of


def carried_out(sums, out, table, index, values):
    """What a GPU makes of it: every sum by a program of its own, which write where they are told; how often where."""
    written = torch.zeros(len(out), dtype=torch.long)
    for begin, end, place in zip(*(t.tolist() for t in sums), strict=True):
        if place >= 0:
            out[place] = (values[begin:end, None] * table[index[begin:end]]).sum(dim=0)
            written[place] += 1
        else:
            assert end <= begin  # nothing would be read for nothing
    return written


@given(lengths=st.lists(st.integers(0, 23), min_size=1, max_size=12), size=st.integers(1, 9))
@example(lengths=[23, 0, 9, 0], size=1)
@example(lengths=[0, 0], size=3)
@example(lengths=[3, 3], size=3)
@settings(max_examples=200, deadline=None)
def test_they_add_up(lengths, size):
    counts = torch.tensor(lengths)
    total = int(counts.sum())
    generator = torch.Generator().manual_seed(total)
    index = torch.randint(7, (total,), generator=generator)
    values = torch.randn(total, generator=generator, dtype=torch.float64)
    table = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    starts = counts.cumsum(0) - counts
    assert torch.equal(ends_of(starts, total), counts.cumsum(0))

    made = chunked(starts, total, size)
    out = torch.full((made.rows, 3), torch.nan, dtype=torch.float64)
    first = carried_out(made.first, out, table, index, values)
    assert first.max() <= 1
    assert all(
        e - b <= size for b, e in zip(made.first.begins.tolist(), made.first.ends.tolist(), strict=True)
    )
    if made.second is None:
        assert total <= size
    else:
        ones = torch.ones(made.rows, dtype=torch.float64)
        again = carried_out(made.second, out, out.clone(), torch.arange(made.rows), ones)
        assert torch.equal((first + again)[: len(lengths)], torch.ones(len(lengths), dtype=torch.long))
    parts = (values[:, None] * table[index]).split(lengths)
    expected = torch.stack([part.sum(dim=0) for part in parts])
    assert torch.allclose(out[: len(lengths)], expected)


def test_how_much_room_they_take_follows_from_the_number_of_picks():
    """Nothing has to be asked of a GPU before the next program starts."""
    for starts in ([0, 0, 0, 50], [0, 50, 50, 50], [0, 12, 25, 37]):
        made = chunked(torch.tensor(starts), 50, 8)
        assert made.rows == 4 + 2 * (50 // 8)
        assert len(made.first.places) == 4 + 50 // 8
