"""The selective scan as Triton kernels. Import only where Triton is.

A program owns a block of channels of one row with all their states, and walks through the tokens. The forward pass
leaves the states every CHUNK tokens; the backward pass recomputes a chunk's states into scratch memory and goes back
through them. Gradients of B and C, which channels share, are written once a block and summed outside, so that results
do not depend on which program comes first.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"
import triton
import triton.language as tl


@triton.jit
def _step(dt, u, b_row, t, c, D, bias, inside, SOFTPLUS: tl.constexpr):
    place = b_row + t * D + c
    x = tl.load(u + place, mask=inside, other=0.0).to(tl.float32)
    raw = tl.load(dt + place, mask=inside, other=0.0).to(tl.float32) + bias
    if SOFTPLUS:
        # The smaller of the two keeps the branch that is not taken from overflowing.
        step = tl.where(raw > 20.0, raw, tl.log(1.0 + tl.exp(tl.minimum(raw, 20.0))))
    else:
        step = raw
    return x, raw, step


@triton.jit
def _cut(border, row, t, L, backward, HAS_BORDER: tl.constexpr):
    """1 where the state goes on, 0 where a border lies before the token in the order of the scan."""
    if HAS_BORDER:
        place = t + backward
        marked = tl.load(border + row * L + place, mask=place < L, other=0)
        keep = 1.0 - marked.to(tl.float32)
    else:
        keep = 1.0
    return keep


@triton.jit
def forward_kernel(
    u, dt, A, B, C, skip, bias, border, y, saved, carried,
    L, D, G, N, forward_groups, chunks,
    CHUNK: tl.constexpr, STATES: tl.constexpr, CHANNELS: tl.constexpr,
    SOFTPLUS: tl.constexpr, HAS_BORDER: tl.constexpr, SAVE: tl.constexpr, CARRY: tl.constexpr,
):  # fmt: skip
    row, block = tl.program_id(0), tl.program_id(1)
    blocks = tl.cdiv(D // G, CHANNELS)
    g = block // blocks
    within = (block % blocks) * CHANNELS + tl.arange(0, CHANNELS)
    n = tl.arange(0, STATES)
    c = g * (D // G) + within
    inside = within < D // G
    both = inside[:, None] & (n < N)[None, :]
    rate = tl.load(A + c[:, None] * N + n[None, :], mask=both, other=0.0) * 1.4426950408889634
    direct = tl.load(skip + c, mask=inside, other=0.0)
    offset = tl.load(bias + c, mask=inside, other=0.0)
    backward = (g >= forward_groups).to(tl.int32)
    state = tl.zeros((CHANNELS, STATES), tl.float32)
    if CARRY:  # from the state that the tokens before left, which is overwritten by the last
        held = carried + (row * D + c[:, None]) * N + n[None, :]
        state = tl.load(held, mask=both, other=0.0)
    for i in range(0, L):
        t = i + backward * (L - 1 - 2 * i)
        if SAVE and i % CHUNK == 0:
            tl.store(saved + ((row * chunks + i // CHUNK) * D + c[:, None]) * N + n[None, :], state, mask=both)
        x, _raw, step = _step(dt, u, row * L * D, t, c, D, offset, inside, SOFTPLUS)
        shared = ((row * L + t) * G + g) * N + n
        into = tl.load(B + shared, mask=n < N, other=0.0).to(tl.float32)
        out = tl.load(C + shared, mask=n < N, other=0.0).to(tl.float32)
        keep = _cut(border, row, t, L, backward, HAS_BORDER)
        state = tl.exp2(step[:, None] * rate) * keep * state + (step * x)[:, None] * into[None, :]
        value = tl.sum(state * out[None, :], 1) + direct * x
        tl.store(y + row * L * D + t * D + c, value.to(y.dtype.element_ty), mask=inside)
    if CARRY:
        tl.store(held, state, mask=both)


@triton.jit
def backward_kernel(
    u, dt, A, B, C, skip, bias, border, dy, saved, scratch,
    du, ddt, dA, dB, dC, dskip, dbias,
    rows, L, D, G, N, forward_groups, chunks,
    CHUNK: tl.constexpr, STATES: tl.constexpr, CHANNELS: tl.constexpr,
    SOFTPLUS: tl.constexpr, HAS_BORDER: tl.constexpr,
):  # fmt: skip
    row, block = tl.program_id(0), tl.program_id(1)
    blocks = tl.cdiv(D // G, CHANNELS)
    g = block // blocks
    within = (block % blocks) * CHANNELS + tl.arange(0, CHANNELS)
    n = tl.arange(0, STATES)
    c = g * (D // G) + within
    inside = within < D // G
    both = inside[:, None] & (n < N)[None, :]
    place = c[:, None] * N + n[None, :]
    plain = tl.load(A + place, mask=both, other=0.0)
    rate = plain * 1.4426950408889634
    direct = tl.load(skip + c, mask=inside, other=0.0)
    offset = tl.load(bias + c, mask=inside, other=0.0)
    backward = (g >= forward_groups).to(tl.int32)
    gradient = tl.zeros((CHANNELS, STATES), tl.float32)
    total_A = tl.zeros((CHANNELS, STATES), tl.float32)
    total_skip = tl.zeros((CHANNELS,), tl.float32)
    total_bias = tl.zeros((CHANNELS,), tl.float32)
    tile = tl.arange(0, CHANNELS)[:, None] * STATES + n[None, :]
    own = scratch + (row * tl.num_programs(1) + block) * CHUNK * CHANNELS * STATES + tile
    # Partial sums of this block over its channels: (block within the group, row, token, group, state).
    part = (block % blocks) * rows * L * G * N
    for back in range(0, chunks):
        chunk = chunks - 1 - back
        first = chunk * CHUNK
        count = tl.minimum(CHUNK, L - first)
        state = tl.load(saved + (row * chunks + chunk) * D * N + place, mask=both, other=0.0)
        for j in range(0, count):
            i = first + j
            t = i + backward * (L - 1 - 2 * i)
            x, raw, step = _step(dt, u, row * L * D, t, c, D, offset, inside, SOFTPLUS)
            into = tl.load(B + ((row * L + t) * G + g) * N + n, mask=n < N, other=0.0).to(tl.float32)
            keep = _cut(border, row, t, L, backward, HAS_BORDER)
            tl.store(own + j * CHANNELS * STATES, state)  # before the token
            state = tl.exp2(step[:, None] * rate) * keep * state + (step * x)[:, None] * into[None, :]
        tl.debug_barrier()
        for k in range(0, count):
            j = count - 1 - k
            i = first + j
            t = i + backward * (L - 1 - 2 * i)
            x, raw, step = _step(dt, u, row * L * D, t, c, D, offset, inside, SOFTPLUS)
            shared = ((row * L + t) * G + g) * N + n
            into = tl.load(B + shared, mask=n < N, other=0.0).to(tl.float32)
            out = tl.load(C + shared, mask=n < N, other=0.0).to(tl.float32)
            keep = _cut(border, row, t, L, backward, HAS_BORDER)
            above = tl.load(dy + row * L * D + t * D + c, mask=inside, other=0.0).to(tl.float32)
            before = tl.load(own + j * CHANNELS * STATES)
            gradient += above[:, None] * out[None, :]
            tl.store(dC + part + shared, tl.sum(above[:, None] * state, 0), mask=n < N)
            tl.store(dB + part + shared, tl.sum(gradient * (step * x)[:, None], 0), mask=n < N)
            fed = tl.sum(gradient * into[None, :], 1)
            gradient = gradient * tl.exp2(step[:, None] * rate) * keep
            weight = gradient * before
            total_A += weight * step[:, None]
            slope = tl.sum(weight * plain, 1) + x * fed
            if SOFTPLUS:
                slope = slope * tl.where(raw > 20.0, 1.0, tl.sigmoid(raw))
            total_bias += slope
            total_skip += above * x
            at = row * L * D + t * D + c
            tl.store(ddt + at, slope.to(ddt.dtype.element_ty), mask=inside)
            tl.store(du + at, (step * fed + direct * above).to(du.dtype.element_ty), mask=inside)
            state = before
        tl.debug_barrier()
    tl.store(dA + row * D * N + place, total_A, mask=both)
    tl.store(dskip + row * D + c, total_skip, mask=inside)
    tl.store(dbias + row * D + c, total_bias, mask=inside)
