// The two passes in plain vectors: every processor, float32 and bfloat16, any rank and any width.

constexpr int64_t COLUMNS = 64;  // of B, transposed at a time

// Sums of products of `TOKENS` rows of x with four rows of A: lane 4·m + n of the result.
template <int TOKENS, typename T>
inline Floats products(const T* const* x, const T* const* a, int64_t d_in) {
    Floats sum[LANES] = {};
    int64_t whole = d_in / LANES * LANES;
    for (int64_t k = 0; k < whole; k += LANES) {
        Floats right[4];
        for (int n = 0; n < 4; n++) right[n] = load(a[n] + k);
        for (int m = 0; m < TOKENS; m++) {
            Floats left = load(x[m] + k);
            for (int n = 0; n < 4; n++) sum[4 * m + n] += left * right[n];
        }
    }
    if (whole < d_in) {
        for (int m = 0; m < TOKENS; m++) {
            Floats left = load_part(x[m] + whole, d_in - whole);
            for (int n = 0; n < 4; n++) sum[4 * m + n] += left * load_part(a[n] + whole, d_in - whole);
        }
    }
    return sums(sum);
}

// z[p] = w·s·(A x[t]) for up to four pairs of one expert, from pair p on; what is beyond the rank is zero.
template <int TOKENS, typename T>
void down_tile(const Linear& linear, const Groups& groups, int64_t expert, int64_t p, const T* x, float* z,
               int64_t width) {
    const T* a = static_cast<const T*>(linear.down[expert]);
    int64_t rank = linear.rank[expert];
    const T* rows[TOKENS];
    float factor[TOKENS];
    for (int m = 0; m < TOKENS; m++) {
        rows[m] = x + groups.token[p + m] * linear.d_in;
        factor[m] = groups.weight[p + m] * linear.scale[expert];
        std::memset(z + (p + m) * width, 0, width * sizeof(float));
    }
    for (int64_t j = 0; j < rank; j += 4) {
        const T* four[4];
        for (int64_t n = 0; n < 4; n++) four[n] = a + std::min(j + n, rank - 1) * linear.d_in;
        float found[LANES];
        store(found, products<TOKENS>(rows, four, linear.d_in));
        for (int m = 0; m < TOKENS; m++)
            for (int64_t n = 0; n < std::min<int64_t>(4, rank - j); n++)
                z[(p + m) * width + j + n] = factor[m] * found[4 * m + n];
    }
}

// One piece; while it is worked off, the rows of x and the matrix that come next are on their way.
template <typename T>
void down_piece(const Linear& linear, const Groups& groups, Piece piece, int64_t next, const T* x, float* z,
                int64_t width) {
    int64_t p = piece.begin, row = linear.d_in * sizeof(T);
    const char* matrix = static_cast<const char*>(linear.down[next]);
    int64_t left = next == piece.expert ? 0 : linear.rank[next] * row;
    int64_t share = left / ((piece.end - p + 3) / 4) / 64 * 64 + 64;
    for (; p + 4 <= piece.end; p += 4) {
        for (int64_t i = p + 4; i < std::min(p + 8, piece.end); i++) announce(x + groups.token[i] * linear.d_in, row);
        announce(matrix, std::min(share, left));
        matrix += std::min(share, left);
        left -= std::min(share, left);
        down_tile<4>(linear, groups, piece.expert, p, x, z, width);
    }
    announce(matrix, left);
    switch (piece.end - p) {
        case 3: return down_tile<3>(linear, groups, piece.expert, p, x, z, width);
        case 2: return down_tile<2>(linear, groups, piece.expert, p, x, z, width);
        case 1: return down_tile<1>(linear, groups, piece.expert, p, x, z, width);
    }
}

// Columns [column, column + count) of B's transpose: turned [rank rounded up to 16, 16], 16 columns at a time.
template <typename T>
void turn(const T* b, int64_t rank, int64_t count, float* turned) {
    for (int64_t j = 0; j < rank; j += LANES) {
        Floats block[LANES] = {};
        int64_t here = std::min(LANES, rank - j);
        for (int64_t i = 0; i < count; i++)
            block[i] = here == LANES ? load(b + i * rank + j) : load_part(b + i * rank + j, here);
        transpose(block);
        for (int64_t i = 0; i < LANES; i++) store(turned + (j + i) * LANES, block[i]);
    }
}

// y[t] += turned·z[p] for some pairs from p on, in 16 columns (`count` of them where y ends).
template <int TOKENS, typename T>
inline void up_tile(const Groups& groups, int64_t p, int64_t rank, const float* turned, const float* z, int64_t width,
                    T* y, int64_t d_out, int64_t count) {
    Floats sum[TOKENS] = {};
    for (int64_t j = 0; j < rank; j++) {
        Floats column = load(turned + j * LANES);
        for (int m = 0; m < TOKENS; m++) sum[m] += z[(p + m) * width + j] * column;
    }
    for (int m = 0; m < TOKENS; m++) {
        T* to = y + groups.token[p + m] * d_out;
        if (count == LANES)
            store(to, load(to) + sum[m]);
        else
            store_part(to, load_part(to, count) + sum[m], count);
    }
}

// One expert's pairs [begin, end) in the columns [first, last) of y.
template <typename T>
void up_piece(const Linear& linear, const Groups& groups, Piece piece, int64_t next, int64_t first, int64_t last,
              const float* z, int64_t width, T* y, Scratch& scratch) {
    const T* following = static_cast<const T*>(linear.up[next]);
    const T* b = static_cast<const T*>(linear.up[piece.expert]);
    int64_t rank = linear.rank[piece.expert], block = width * LANES;
    float* turned = scratch.need<float>(block * (COLUMNS / LANES));
    for (int64_t column = first; column < last; column += COLUMNS) {
        int64_t end = std::min(column + COLUMNS, last);
        for (int64_t c = column; c < end; c += LANES)
            turn(b + c * rank, rank, std::min(LANES, end - c), turned + (c - column) / LANES * block);
        if (next != piece.expert)
            announce(following + column * linear.rank[next], (end - column) * linear.rank[next] * sizeof(T));
        int64_t p = piece.begin;
        auto all = [&](auto tokens) {
            for (int64_t i = p + tokens; i < std::min<int64_t>(p + 2 * tokens, piece.end); i++)
                announce(y + groups.token[i] * linear.d_out + column, (end - column) * sizeof(T));
            for (int64_t c = column; c < end; c += LANES)
                up_tile<decltype(tokens)::value>(groups, p, rank, turned + (c - column) / LANES * block, z, width,
                                                 y + c, linear.d_out, std::min(LANES, end - c));
            p += tokens;
        };
        while (p + 8 <= piece.end) all(std::integral_constant<int, 8>());
        if (p + 4 <= piece.end) all(std::integral_constant<int, 4>());
        if (p + 2 <= piece.end) all(std::integral_constant<int, 2>());
        if (p < piece.end) all(std::integral_constant<int, 1>());
    }
}
