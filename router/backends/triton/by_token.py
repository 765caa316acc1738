"""What runs on the GPU for few tokens: a program works on one token and reads the rows of its experts alone.

Nothing is sorted. The first pass is cut along the linear's input too, so that one token already keeps many programs
busy; the second adds the parts up in a fixed order, so equal inputs give equal bits.

Shapes: T tokens, K slots of a token, E experts, r rank, d width of the linear's input or output, P parts of the input.
rows [T, d] · matrices [E, r, d] · indices, weights [T, K] · inner [P, K, T, r] float32.
"""

import triton
import triton.language as tl


@triton.jit
def shrink_tokens(
    rows: tl.tensor,
    matrices: tl.tensor,
    indices: tl.tensor,
    weights: tl.tensor,
    inner: tl.tensor,
    tokens: tl.tensor,
    width: tl.tensor,
    rank: tl.tensor,
    SLOTS: tl.constexpr,
    RANK: tl.constexpr,
    WIDTH: tl.constexpr,
    PART: tl.constexpr,
) -> None:
    """inner[p, k, t] = matrices[e] · rows[t] over the columns of part p; grid: pairs, parts, blocks of the rank."""
    pair, part = tl.program_id(0), tl.program_id(1)
    token, slot = pair // SLOTS, pair % SLOTS
    if tl.load(weights + pair) != 0:
        expert = tl.load(indices + pair)
        line = tl.program_id(2) * RANK + tl.arange(0, RANK)
        real = line < rank
        total = tl.zeros([RANK, WIDTH], dtype=tl.float32)
        for begin in range(0, PART, WIDTH):
            column = part * PART + begin + tl.arange(0, WIDTH)
            within = column < width
            row = tl.load(rows + token * width + column, mask=within, other=0.0).to(tl.float32)
            from_matrix = matrices + (expert * rank + line[:, None]) * width + column[None, :]
            matrix = tl.load(from_matrix, mask=real[:, None] & within[None, :], other=0.0).to(tl.float32)
            total += matrix * row[None, :]
        into = inner + ((part * SLOTS + slot) * tokens + token) * rank + line
        tl.store(into, tl.sum(total, axis=1), mask=real)


@triton.jit
def expand_tokens(
    base: tl.tensor,
    inner: tl.tensor,
    matrices: tl.tensor,
    indices: tl.tensor,
    weights: tl.tensor,
    scale: tl.tensor,
    out: tl.tensor,
    tokens: tl.tensor,
    width: tl.tensor,
    rank: tl.tensor,
    parts: tl.tensor,
    SLOTS: tl.constexpr,
    RANK: tl.constexpr,
    WIDTH: tl.constexpr,
    PARTS: tl.constexpr,
) -> None:
    """out[t] = base[t] + Σ_k g·s · (Σ_p inner[p, k, t]) · matrices[e]; grid: tokens, blocks of columns."""
    token = tl.program_id(0)
    column = tl.program_id(1) * WIDTH + tl.arange(0, WIDTH)
    within = column < width
    part = tl.arange(0, PARTS)
    total = tl.load(base + token * width + column, mask=within, other=0.0).to(tl.float32)
    for slot in range(SLOTS):
        gate = tl.load(weights + token * SLOTS + slot).to(tl.float32)
        if gate != 0:
            expert = tl.load(indices + token * SLOTS + slot)
            gate *= tl.load(scale + expert).to(tl.float32)
            for begin in range(0, rank, RANK):
                line = begin + tl.arange(0, RANK)
                real = line < rank
                from_inner = inner + ((part[:, None] * SLOTS + slot) * tokens + token) * rank + line[None, :]
                pieces = tl.load(from_inner, mask=(part < parts)[:, None] & real[None, :], other=0.0)
                left = tl.sum(pieces, axis=0) * gate
                from_matrix = matrices + (expert * rank + line[:, None]) * width + column[None, :]
                matrix = tl.load(from_matrix, mask=real[:, None] & within[None, :], other=0.0).to(tl.float32)
                total += tl.sum(left[:, None] * matrix, axis=0)
    tl.store(out + token * width + column, total.to(out.dtype.element_ty), mask=within)
