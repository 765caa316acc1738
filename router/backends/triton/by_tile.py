"""What runs on the GPU for many tokens: a program works on a tile of tokens of one expert, with matrix units.

No two programs write to one place and none waits for another, so equal inputs give equal bits.

Shapes: T tokens, K slots of a token, E experts, r rank, d width of the linear's input or output.
rows [T, d] · matrices [E, r, d] · inner [K, T, r] float32 · order, ends and table as in `moehub.router.tiles`.
"""

import triton
import triton.language as tl


@triton.jit
def multiply(left: tl.tensor, right: tl.tensor, total: tl.tensor, WIDE: tl.constexpr) -> tl.tensor:
    """Return total + left · right, float32; WIDE is for triton's interpreter, which cannot multiply bfloat16."""
    if WIDE:
        left, right = left.to(tl.float32), right.to(tl.float32)
    return tl.dot(left, right, total, input_precision="ieee")


@triton.jit
def shrink_tiles(
    rows: tl.tensor,
    matrices: tl.tensor,
    inner: tl.tensor,
    order: tl.tensor,
    table: tl.tensor,
    tokens: tl.tensor,
    width: tl.tensor,
    rank: tl.tensor,
    tiles: tl.tensor,
    EXPERTS: tl.constexpr,
    SIZE: tl.constexpr,
    RANK: tl.constexpr,
    WIDTH: tl.constexpr,
    EVEN: tl.constexpr,
    WIDE: tl.constexpr,
) -> None:
    """inner[k, t] = matrices[e] · rows[t] for the tokens of a tile; grid: tiles, slots, blocks of the rank."""
    slot = tl.program_id(1)
    entry = table + (slot * tiles + tl.program_id(0)) * 3
    expert, first, last = tl.load(entry).to(tl.int64), tl.load(entry + 1), tl.load(entry + 2)
    if (first < last) & (expert < EXPERTS):
        place = first + tl.arange(0, SIZE)
        there = place < last
        token = tl.load(order + slot * tokens + place, mask=there, other=0).to(tl.int64)
        line = tl.program_id(2) * RANK + tl.arange(0, RANK)
        real = line < rank
        from_rows = rows + token[:, None] * width
        from_matrix = matrices + (expert * rank + line[:, None]) * width
        total = tl.zeros([SIZE, RANK], dtype=tl.float32)
        for begin in range(0, width, WIDTH):
            column = begin + tl.arange(0, WIDTH)
            if EVEN:
                left = tl.load(from_rows + column[None, :], mask=there[:, None], other=0.0)
                right = tl.load(from_matrix + column[None, :], mask=real[:, None], other=0.0)
            else:
                within = (column < width)[None, :]
                left = tl.load(from_rows + column[None, :], mask=there[:, None] & within, other=0.0)
                right = tl.load(from_matrix + column[None, :], mask=real[:, None] & within, other=0.0)
            total = multiply(left, tl.trans(right), total, WIDE)
        into = inner + (slot * tokens + token[:, None]) * rank + line[None, :]
        tl.store(into, total, mask=there[:, None] & real[None, :])


@triton.jit
def expand_tiles(
    base: tl.tensor,
    inner: tl.tensor,
    matrices: tl.tensor,
    weights: tl.tensor,
    scale: tl.tensor,
    out: tl.tensor,
    order: tl.tensor,
    table: tl.tensor,
    slot: tl.tensor,
    tokens: tl.tensor,
    width: tl.tensor,
    rank: tl.tensor,
    tiles: tl.tensor,
    SLOTS: tl.constexpr,
    EXPERTS: tl.constexpr,
    SIZE: tl.constexpr,
    RANK: tl.constexpr,
    WIDTH: tl.constexpr,
    BASE: tl.constexpr,
    FIRST: tl.constexpr,
    WIDE: tl.constexpr,
) -> None:
    """out[t] = base[t] + g·s · inner[k, t] · matrices[e] for the tokens of a tile of one slot; grid: tiles, columns.

    A slot holds every token once, so its programs share no output; the slots follow one another. The FIRST one
    writes every token, the later ones add to what is there. Without a BASE it counts as zero.
    """
    entry = table + (slot * tiles + tl.program_id(0)) * 3
    expert, first, last = tl.load(entry).to(tl.int64), tl.load(entry + 1), tl.load(entry + 2)
    if (first < last) & (FIRST | (expert < EXPERTS)):
        place = first + tl.arange(0, SIZE)
        there = place < last
        token = tl.load(order + slot * tokens + place, mask=there, other=0).to(tl.int64)
        column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
        within = column < width
        total = tl.zeros([SIZE, WIDTH], dtype=tl.float32)
        if expert < EXPERTS:
            gate = tl.load(weights + token * SLOTS + slot, mask=there, other=0.0).to(tl.float32)
            gate *= tl.load(scale + expert).to(tl.float32)
            for begin in range(0, rank, RANK):
                line = begin + tl.arange(0, RANK)
                real = line < rank
                from_inner = inner + (slot * tokens + token[:, None]) * rank + line[None, :]
                left = tl.load(from_inner, mask=there[:, None] & real[None, :], other=0.0) * gate[:, None]
                from_matrix = matrices + (expert * rank + line[:, None]) * width + column[None, :]
                right = tl.load(from_matrix, mask=real[:, None] & within[None, :], other=0.0)
                total = multiply(left.to(right.dtype), right, total, WIDE)
        place_out = token[:, None] * width + column[None, :]
        mask = there[:, None] & within[None, :]
        if not FIRST:
            total += tl.load(out + place_out, mask=mask, other=0.0).to(tl.float32)
        elif BASE:
            total += tl.load(base + place_out, mask=mask, other=0.0).to(tl.float32)
        tl.store(out + place_out, total.to(out.dtype.element_ty), mask=mask)


@triton.jit
def sum_tokens(
    inner: tl.tensor,
    rows: tl.tensor,
    weights: tl.tensor,
    scale: tl.tensor,
    out: tl.tensor,
    order: tl.tensor,
    ends: tl.tensor,
    tokens: tl.tensor,
    width: tl.tensor,
    rank: tl.tensor,
    SLOTS: tl.constexpr,
    EXPERTS: tl.constexpr,
    SIZE: tl.constexpr,
    RANK: tl.constexpr,
    WIDTH: tl.constexpr,
    WIDE: tl.constexpr,
) -> None:
    """out[e] = Σ over e's pairs of g·s · inner[k, t]ᵀ rows[t]; grid: experts, columns, blocks of the rank."""
    expert = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    line = tl.program_id(2) * RANK + tl.arange(0, RANK)
    within, real = column < width, line < rank
    factor = tl.load(scale + expert).to(tl.float32)
    total = tl.zeros([RANK, WIDTH], dtype=tl.float32)
    for slot in range(SLOTS):
        end = ends + slot * (EXPERTS + 1) + expert
        first = tl.load(end - 1, mask=expert > 0, other=0)
        last = tl.load(end)
        for begin in range(first, last, SIZE):
            place = begin + tl.arange(0, SIZE)
            there = place < last
            token = tl.load(order + slot * tokens + place, mask=there, other=0).to(tl.int64)
            gate = tl.load(weights + token * SLOTS + slot, mask=there, other=0.0).to(tl.float32) * factor
            from_inner = inner + (slot * tokens + token[:, None]) * rank + line[None, :]
            left = tl.load(from_inner, mask=there[:, None] & real[None, :], other=0.0) * gate[:, None]
            from_rows = rows + token[:, None] * width + column[None, :]
            right = tl.load(from_rows, mask=there[:, None] & within[None, :], other=0.0)
            total = multiply(tl.trans(left.to(right.dtype)), right, total, WIDE)
    into = out + (expert * rank + line[:, None]) * width + column[None, :]
    tl.store(into, total.to(out.dtype.element_ty), mask=real[:, None] & within[None, :])
