"""Two kernels that sparse training needs: weighted sums of table rows, and products of rows with table rows.

Both read rows in the precision that they lie in, compute in float32, and add up in an order that depends on the sizes
alone, so results repeat to the bit. This module imports Triton: import it where it is used.
"""

from __future__ import annotations

from typing import no_type_check

import triton  # type: ignore[import-not-found, import-untyped, unused-ignore]
import triton.language as tl  # type: ignore[import-not-found, import-untyped, unused-ignore]


@triton.jit  # type: ignore[untyped-decorator, misc, unused-ignore]
@no_type_check
def sum_rows(  # type: ignore[no-untyped-def, unused-ignore]  # Triton reads annotations as its own
    out,
    table,
    index,
    values,
    begins,
    ends,
    places,
    width,
    PICKS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """out[place] = Σ value · table[index] from begin to end, for one sum and some columns; nothing where place < 0.

    Args:
        out: rows × width in float32.
        table: rows × width in float32 or bfloat16.
        index: of the table's row, for each pick.
        values: for each pick, in float32.
        begins: first pick of each sum.
        ends: the one after its last.
        places: row of the result.
        width: columns.
        PICKS: read at a time, a power of 2.
        COLUMNS: of one program, a power of 2.
    """
    which = tl.program_id(0)
    begin, end, place = tl.load(begins + which), tl.load(ends + which), tl.load(places + which)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < width
    total = tl.zeros([COLUMNS], dtype=tl.float32)
    for at in range(begin, end, PICKS):
        picks = at + tl.arange(0, PICKS)
        some = picks < end
        rows = tl.load(index + picks, mask=some, other=0)
        weights = tl.load(values + picks, mask=some, other=0.0)
        tile = tl.load(
            table + rows[:, None] * width + columns[None, :],
            mask=some[:, None] & inside[None, :],
            other=0.0,
        )
        total += tl.sum(tile.to(tl.float32) * weights[:, None], axis=0)
    tl.store(out + place * width + columns, total, mask=inside & (place >= 0))


@triton.jit  # type: ignore[untyped-decorator, misc, unused-ignore]
@no_type_check
def dot_rows(  # type: ignore[no-untyped-def, unused-ignore]  # Triton reads annotations as its own
    out,
    x,
    table,
    index,
    begins,
    ends,
    width,
    PICKS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """out[pick] = x[row] · table[index], for the picks of one row.

    Args:
        out: one number for each pick, in float32.
        x: rows × width in float32 or bfloat16.
        table: likewise.
        index: of the table's row, for each pick.
        begins: first pick of each row of x.
        ends: the one after its last.
        width: columns.
        PICKS: at a time, a power of 2.
        COLUMNS: at a time, a power of 2.
    """
    row = tl.program_id(0)
    begin, end = tl.load(begins + row), tl.load(ends + row)
    own = x + row.to(tl.int64) * width
    for at in range(begin, end, PICKS):
        picks = at + tl.arange(0, PICKS)
        some = picks < end
        rows = tl.load(index + picks, mask=some, other=0)
        total = tl.zeros([PICKS], dtype=tl.float32)
        for first in range(0, width, COLUMNS):
            columns = first + tl.arange(0, COLUMNS)
            inside = columns < width
            here = tl.load(own + columns, mask=inside, other=0.0).to(tl.float32)
            tile = tl.load(
                table + rows[:, None] * width + columns[None, :],
                mask=some[:, None] & inside[None, :],
                other=0.0,
            )
            total += tl.sum(tile.to(tl.float32) * here[None, :], axis=1)
        tl.store(out + picks, total, mask=some)
