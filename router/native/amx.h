// The two passes in bfloat16 with 16-bit matrix instructions (AMX): tiles of 16 rows of 32 values.
//
// An instruction multiplies a tile of tokens [16, 32] with a tile that holds the other matrix in pairs of values,
// [16 pairs, 16 columns]. A and B lie with their values along the other direction, so a tile of theirs is read as
// words (a word: two values) and transposed in registers.

constexpr int64_t DEPTH = 32;  // values that one instruction multiplies and adds
constexpr int64_t TILE = 16;   // rows of a tile
constexpr int64_t FEW = 4;     // below, vectors are quicker than tiles

struct alignas(64) TileShapes {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};
};

// Tiles 0 to 3 hold sums, 4 and 5 tokens, 6 and 7 a matrix; its depth may be half.
inline void shape_tiles(int64_t depth) {
    TileShapes shapes;
    for (int i = 0; i < 8; i++) shapes.rows[i] = TILE, shapes.bytes[i] = 64;
    for (int i : {4, 5}) shapes.bytes[i] = static_cast<uint16_t>(2 * depth);
    for (int i : {6, 7}) shapes.rows[i] = static_cast<uint8_t>(depth / 2);
    _tile_loadconfig(&shapes);
}

// Whether the system lets this process use tiles.
bool tiles_allowed() {
    constexpr long REQUEST = 0x1023, DATA = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    static const bool allowed = syscall(SYS_arch_prctl, REQUEST, DATA) == 0;
    return allowed;
}

inline bool tiles_fit(const Linear& linear) {
    return linear.d_in % DEPTH == 0 && linear.d_out % DEPTH == 0 && tiles_allowed();
}

// Sixteen rows of A (zeros beyond `rows`), [rows, d_in] → [d_in / 32][16 pairs][16 rows] of words.
inline void pack_down(const bfloat16* a, int64_t rows, int64_t d_in, bfloat16* packed) {
    for (int64_t k = 0; k < d_in; k += DEPTH) {
        Floats block[LANES] = {};
        for (int64_t i = 0; i < rows; i++) std::memcpy(&block[i], a + i * d_in + k, 64);
        transpose(block);
        std::memcpy(packed + k * TILE, block, sizeof block);
    }
}

// Rows of x that pairs [p, p + count) name → [d_in / 32][16 rows][32].
inline void pack_tokens(const Groups& groups, int64_t p, int64_t count, const bfloat16* x, int64_t d_in,
                        bfloat16* packed) {
    for (int64_t i = 0; i < count; i++) {
        const bfloat16* row = x + groups.token[p + i] * d_in;
        for (int64_t k = 0; k < d_in; k += DEPTH) std::memcpy(packed + k * TILE + i * DEPTH, row + k, 64);
    }
}

// Write z of up to 16 pairs and 16 ranks from their sums.
inline void keep_down(const Groups& groups, float scale, int64_t p, int64_t count, const float* sums, bfloat16* z,
                      int64_t width) {
    for (int64_t i = 0; i < count; i++)
        store(z + (p + i) * width, load(sums + i * LANES) * (groups.weight[p + i] * scale));
}

// z of up to 32 pairs of one expert and 16 of its ranks. Four sums are under way at once: an instruction takes
// three times as long to finish as until the next may start.
template <int BLOCKS>
void down_tiles(const Groups& groups, float scale, int64_t p, int64_t count, const bfloat16* tokens,
                const bfloat16* matrix, int64_t d_in, bfloat16* z, int64_t width) {
    alignas(64) float sums[4][TILE * LANES];
    int64_t block = d_in * TILE;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    constexpr int64_t STEP = BLOCKS == 2 ? 2 : 4;
    int64_t k = 0;
    for (; k + STEP <= d_in / DEPTH; k += STEP) {
        if constexpr (BLOCKS == 2) {
            for (int half = 0; half < 2; half++) {
                const bfloat16* at = tokens + (k + half) * DEPTH * TILE;
                _tile_loadd(6, matrix + (k + half) * DEPTH * TILE, 64);
                _tile_loadd(4, at, 64);
                _tile_loadd(5, at + block, 64);
                if (half == 0) {
                    _tile_dpbf16ps(0, 4, 6);
                    _tile_dpbf16ps(1, 5, 6);
                } else {
                    _tile_dpbf16ps(2, 4, 6);
                    _tile_dpbf16ps(3, 5, 6);
                }
            }
        } else {
            const bfloat16 *at = tokens + k * DEPTH * TILE, *with = matrix + k * DEPTH * TILE;
            constexpr int64_t NEXT = DEPTH * TILE;
            _tile_loadd(4, at, 64);
            _tile_loadd(6, with, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(5, at + NEXT, 64);
            _tile_loadd(7, with + NEXT, 64);
            _tile_dpbf16ps(1, 5, 7);
            _tile_loadd(4, at + 2 * NEXT, 64);
            _tile_loadd(6, with + 2 * NEXT, 64);
            _tile_dpbf16ps(2, 4, 6);
            _tile_loadd(5, at + 3 * NEXT, 64);
            _tile_loadd(7, with + 3 * NEXT, 64);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    for (; k < d_in / DEPTH; k++) {
        _tile_loadd(6, matrix + k * DEPTH * TILE, 64);
        _tile_loadd(4, tokens + k * DEPTH * TILE, 64);
        _tile_dpbf16ps(0, 4, 6);
        if constexpr (BLOCKS == 2) {
            _tile_loadd(5, tokens + k * DEPTH * TILE + block, 64);
            _tile_dpbf16ps(1, 5, 6);
        }
    }
    _tile_stored(0, sums[0], 64);
    _tile_stored(1, sums[1], 64);
    _tile_stored(2, sums[2], 64);
    _tile_stored(3, sums[3], 64);
    for (int64_t i = 0; i < TILE * LANES; i += LANES) {
        if constexpr (BLOCKS == 2) {
            store(sums[0] + i, load(sums[0] + i) + load(sums[2] + i));
            store(sums[1] + i, load(sums[1] + i) + load(sums[3] + i));
        } else {
            store(sums[0] + i, load(sums[0] + i) + load(sums[1] + i) + (load(sums[2] + i) + load(sums[3] + i)));
        }
    }
    keep_down(groups, scale, p, std::min(count, TILE), sums[0], z, width);
    if constexpr (BLOCKS == 2) keep_down(groups, scale, p + TILE, count - TILE, sums[1], z, width);
}

// z of few pairs: sums of products in vectors, A read once.
inline void down_few(const Linear& linear, const Groups& groups, Piece piece, const bfloat16* x, bfloat16* z,
                     int64_t width) {
    const bfloat16* a = static_cast<const bfloat16*>(linear.down[piece.expert]);
    int64_t rank = linear.rank[piece.expert], count = piece.end - piece.begin, d_in = linear.d_in;
    for (int64_t i = 0; i < count; i++) std::memset(z + (piece.begin + i) * width, 0, width * sizeof *z);
    for (int64_t j = 0; j < rank; j += LANES) {
        int64_t rows = std::min(LANES, rank - j);
        for (int64_t i = 0; i < count; i++) {
            int64_t p = piece.begin + i;
            const bfloat16* row = x + groups.token[p] * d_in;
            __m512 sum[LANES];
            for (auto& one : sum) one = _mm512_setzero_ps();
            for (int64_t k = 0; k < d_in; k += DEPTH) {
                __m512bh left = (__m512bh)_mm512_loadu_si512(row + k);
                for (int64_t n = 0; n < LANES; n++) {
                    const bfloat16* right = a + (j + std::min(n, rows - 1)) * d_in + k;
                    sum[n] = _mm512_dpbf16_ps(sum[n], left, (__m512bh)_mm512_loadu_si512(right));
                }
            }
            Floats each[LANES];
            std::memcpy(each, sum, sizeof each);
            Floats found = sums(each) * (groups.weight[p] * linear.scale[piece.expert]);
            if (rows == LANES)
                store(z + p * width + j, found);
            else
                store_part(z + p * width + j, found, rows);
        }
    }
}

inline void down_piece_tiles(const Linear& linear, const Groups& groups, Piece piece, int64_t next, const bfloat16* x,
                             bfloat16* z, int64_t width, Scratch& scratch) {
    if (next != piece.expert) announce(linear.down[next], linear.rank[next] * linear.d_in * sizeof(bfloat16));
    if (piece.end - piece.begin < FEW) return down_few(linear, groups, piece, x, z, width);
    const bfloat16* a = static_cast<const bfloat16*>(linear.down[piece.expert]);
    int64_t rank = linear.rank[piece.expert], d_in = linear.d_in;
    bfloat16* matrix = scratch.need<bfloat16>(3 * d_in * TILE);
    bfloat16* tokens = matrix + d_in * TILE;
    for (int64_t j = 0; j < width; j += LANES) {
        pack_down(a + std::min(j, rank) * d_in, std::max<int64_t>(0, std::min(LANES, rank - j)), d_in, matrix);
        for (int64_t p = piece.begin; p < piece.end; p += 2 * TILE) {
            int64_t count = std::min(2 * TILE, piece.end - p), first = std::min(count, TILE);
            pack_tokens(groups, p, first, x, d_in, tokens);
            if (count > TILE) {
                pack_tokens(groups, p + TILE, count - TILE, x, d_in, tokens + d_in * TILE);
                down_tiles<2>(groups, linear.scale[piece.expert], p, count, tokens, matrix, d_in, z + j, width);
            } else {
                down_tiles<1>(groups, linear.scale[piece.expert], p, count, tokens, matrix, d_in, z + j, width);
            }
        }
    }
}

// Sixteen rows of B, 16 ranks of each (zeros beyond `ranks`) → [8 pairs][16 rows] of words.
inline void pack_up(const bfloat16* b, int64_t rank, int64_t ranks, __m512i packed[8]) {
    __m512i rows[8];
    for (int64_t i = 0; i < 8; i++) {
        __m256i low, high;
        if (ranks == LANES) {
            low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b + i * rank));
            high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b + (i + 8) * rank));
        } else {
            __mmask16 some = static_cast<__mmask16>((1u << ranks) - 1);
            low = _mm256_maskz_loadu_epi16(some, b + i * rank);
            high = _mm256_maskz_loadu_epi16(some, b + (i + 8) * rank);
        }
        rows[i] = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
    }
    __m512i two[8], four[8];
    for (int i = 0; i < 8; i += 2) {
        two[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        two[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        four[i] = _mm512_unpacklo_epi64(two[i], two[i + 2]);
        four[i + 1] = _mm512_unpackhi_epi64(two[i], two[i + 2]);
        four[i + 2] = _mm512_unpacklo_epi64(two[i + 1], two[i + 3]);
        four[i + 3] = _mm512_unpackhi_epi64(two[i + 1], two[i + 3]);
    }
    const __m512i even = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13), odd = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
    for (int i = 0; i < 4; i++) {
        packed[i] = _mm512_permutex2var_epi64(four[i], even, four[i + 4]);
        packed[i + 4] = _mm512_permutex2var_epi64(four[i], odd, four[i + 4]);
    }
}

// y[t] += B z[p] in 32 columns, for few pairs.
inline void up_few(const Groups& groups, int64_t begin, int64_t end, const __m512i* packed, int64_t chunks,
                   const bfloat16* z, int64_t width, bfloat16* y, int64_t d_out) {
    for (int64_t p = begin; p < end; p++) {
        bfloat16* to = y + groups.token[p] * d_out;
        __m512 low = _mm512_setzero_ps(), high = _mm512_setzero_ps();
        for (int64_t chunk = 0; chunk < chunks; chunk++) {
            for (int64_t i = 0; i < 8; i++) {
                int32_t pair;
                std::memcpy(&pair, z + p * width + chunk * LANES + 2 * i, sizeof pair);
                __m512bh both = (__m512bh)_mm512_set1_epi32(pair);
                low = _mm512_dpbf16_ps(low, both, (__m512bh)packed[chunk * 8 + i]);
                high = _mm512_dpbf16_ps(high, both, (__m512bh)packed[(chunks + chunk) * 8 + i]);
            }
        }
        Floats first, second;
        std::memcpy(&first, &low, sizeof first);
        std::memcpy(&second, &high, sizeof second);
        store(to, load(to) + first);
        store(to + LANES, load(to + LANES) + second);
    }
}

// y[t] += B z[p] in 32 columns, 16 pairs at a time; z may be read beyond the last pair.
inline void up_tiles(const Groups& groups, int64_t begin, int64_t end, const __m512i* packed, int64_t chunks,
                     int64_t depth, const bfloat16* z, int64_t width, bfloat16* y, int64_t d_out) {
    alignas(64) float sums[2][TILE * LANES];
    for (int64_t p = begin; p < end; p += TILE) {
        for (int64_t i = p + TILE; i < std::min(p + 2 * TILE, end); i++) announce(y + groups.token[i] * d_out, 64);
        _tile_zero(0);
        _tile_zero(1);
        for (int64_t chunk = 0; chunk < chunks; chunk += depth / LANES) {
            _tile_loadd(4, z + p * width + chunk * LANES, width * sizeof *z);
            _tile_loadd(6, packed + chunk * 8, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(7, packed + (chunks + chunk) * 8, 64);
            _tile_dpbf16ps(1, 4, 7);
        }
        _tile_stored(0, sums[0], 64);
        _tile_stored(1, sums[1], 64);
        for (int64_t i = 0; i < std::min(TILE, end - p); i++) {
            bfloat16* to = y + groups.token[p + i] * d_out;
            __m512 low = _mm512_add_ps(_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(
                                           reinterpret_cast<const __m256i*>(to))), 16)),
                                       _mm512_load_ps(sums[0] + i * LANES));
            __m512 high = _mm512_add_ps(_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(
                                            reinterpret_cast<const __m256i*>(to + LANES))), 16)),
                                        _mm512_load_ps(sums[1] + i * LANES));
            _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(high, low));
        }
    }
}

inline void up_piece_tiles(const Linear& linear, const Groups& groups, Piece piece, int64_t next, int64_t first,
                           int64_t last, const bfloat16* z, int64_t width, bfloat16* y, Scratch& scratch) {
    const bfloat16* following = static_cast<const bfloat16*>(linear.up[next]);
    const bfloat16* b = static_cast<const bfloat16*>(linear.up[piece.expert]);
    int64_t rank = linear.rank[piece.expert], chunks = width / LANES, depth = chunks % 2 ? LANES : DEPTH;
    __m512i* packed = scratch.need<__m512i>(2 * chunks * 8);
    bool few = piece.end - piece.begin < FEW;
    for (int64_t column = first; column < last; column += DEPTH) {
        for (int64_t chunk = 0; chunk < chunks; chunk++) {
            int64_t ranks = std::max<int64_t>(0, std::min(LANES, rank - chunk * LANES));
            const bfloat16* from = b + column * rank + std::min(chunk * LANES, rank);
            pack_up(from, rank, ranks, packed + chunk * 8);
            pack_up(from + LANES * rank, rank, ranks, packed + (chunks + chunk) * 8);
        }
        if (next != piece.expert) announce(following + column * linear.rank[next], DEPTH * linear.rank[next] * 2);
        if (few)
            up_few(groups, piece.begin, piece.end, packed, chunks, z, width, y + column, linear.d_out);
        else
            up_tiles(groups, piece.begin, piece.end, packed, chunks, depth, z, width, y + column, linear.d_out);
    }
}
