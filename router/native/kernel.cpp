// The sparse layer on a CPU: y[t] += w·s·B_e·A_e·x[t] for every active (token, expert) pair, in place.
//
// A [r, d_in] and B [d_out, r] are read where they lie, as PEFT publishes them: nothing is stacked, padded or
// rearranged in memory. Pairs come sorted by expert ("groups"). Two passes:
//
//     down:  z[p] = w·s·(A x[t])     for each pair p, z [pairs, width] with width = the largest rank, rounded up
//     up:    y[t] += B z[p]          each thread owns a range of columns of y, so no two write the same value
//
// Vectors are GCC's and clang's own extension, so one source serves every processor; where the processor has
// 16-bit matrix instructions (AMX), bfloat16 takes a path of its own.

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <type_traits>
#include <vector>

#ifdef _OPENMP
#include <omp.h>
#endif

#if defined(__AMX_TILE__) && defined(__AMX_BF16__) && defined(__AVX512BF16__) && defined(__AVX512F__) && \
    defined(__AVX512BW__) && defined(__linux__)
#define MOEHUB_AMX 1
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

constexpr int64_t LANES = 16;

typedef float Floats __attribute__((vector_size(64)));
typedef uint32_t Words __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));

struct bfloat16 {
    uint16_t bits;
};

extern "C" {

// The experts beside one linear.
struct Linear {
    int64_t d_in, d_out;
    const void* const* down;  // A of each expert, [r, d_in]; null where it has none here
    const void* const* up;    // B of each expert, [d_out, r]
    const int64_t* rank;
    const float* scale;       // of each expert
};

// The active pairs of a forward, sorted by expert, then by token.
struct Groups {
    int64_t count;    // experts that have pairs
    int64_t* expert;  // [experts], `count` of them used
    int64_t* begin;   // [experts + 1]: where each one's pairs begin
    int64_t* pair;    // [tokens * choices]: position of the pair in the route
    int64_t* token;   // [tokens * choices]
    float* weight;    // [tokens * choices]
};
}

// One consecutive run of pairs of one expert.
struct Piece {
    int64_t expert, begin, end;
};

// Memory that grows and is kept, one for each thread.
struct Scratch {
    void* memory = nullptr;
    size_t size = 0;
    ~Scratch() { std::free(memory); }
    template <typename T>
    T* need(size_t count) {
        size_t bytes = (count * sizeof(T) + 63) / 64 * 64;
        if (bytes > size) {
            std::free(memory);
            memory = std::aligned_alloc(64, bytes);
            size = memory ? bytes : 0;
            if (!memory) throw std::bad_alloc();
        }
        return static_cast<T*>(memory);
    }
};

inline Floats widen(Halves halves) {
    Words words = __builtin_convertvector(halves, Words) << 16;
    Floats floats;
    std::memcpy(&floats, &words, sizeof floats);
    return floats;
}

// Round to the nearest bfloat16, ties to even; a NaN stays one.
inline Halves narrow(Floats floats) {
    Words words;
    std::memcpy(&words, &floats, sizeof words);
    Words rounded = (words + 0x7fffu + ((words >> 16) & 1u)) >> 16;
    Words nan = (words & 0x7fffffffu) > 0x7f800000u;  // all ones where true
    rounded = (nan & 0x7fc0u) | (~nan & rounded);
    return __builtin_convertvector(rounded, Halves);
}

inline Floats load(const float* from) {
    Floats value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

inline Floats load(const bfloat16* from) {
    Halves value;
    std::memcpy(&value, from, sizeof value);
    return widen(value);
}

inline void store(float* to, Floats value) { std::memcpy(to, &value, sizeof value); }

inline void store(bfloat16* to, Floats value) {
    Halves halves = narrow(value);
    std::memcpy(to, &halves, sizeof halves);
}

// The first `count` values; the rest is zero.
template <typename T>
inline Floats load_part(const T* from, int64_t count) {
    T padded[LANES] = {};
    std::memcpy(padded, from, count * sizeof(T));
    return load(padded);
}

template <typename T>
inline void store_part(T* to, Floats value, int64_t count) {
    T padded[LANES];
    store(padded, value);
    std::memcpy(to, padded, count * sizeof(T));
}

// Ask for some bytes that will be read soon; nothing happens where they do not exist.
inline void announce(const void* from, int64_t bytes) {
    const char* at = static_cast<const char*>(from);
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(at + i, 0, 2);
}

#define PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)

// Transpose 16 rows of 16 words: pairs of words, pairs of pairs, then quarters of the registers.
inline void transpose(Floats v[LANES]) {
    Floats t[LANES];
    for (int i = 0; i < 16; i += 2) {
        t[i] = PICK(v[i], v[i + 1], 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29);
        t[i + 1] = PICK(v[i], v[i + 1], 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
    }
    for (int i = 0; i < 16; i += 4) {
        v[i] = PICK(t[i], t[i + 2], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
        v[i + 1] = PICK(t[i], t[i + 2], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
        v[i + 2] = PICK(t[i + 1], t[i + 3], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
        v[i + 3] = PICK(t[i + 1], t[i + 3], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = PICK(v[i], v[i + 4], 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
        t[i + 4] = PICK(v[i], v[i + 4], 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
        t[i + 8] = PICK(v[i + 8], v[i + 12], 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
        t[i + 12] = PICK(v[i + 8], v[i + 12], 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    }
    for (int i = 0; i < 4; i++) {
        v[i] = PICK(t[i], t[i + 8], 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
        v[i + 8] = PICK(t[i], t[i + 8], 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
        v[i + 4] = PICK(t[i + 4], t[i + 12], 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27);
        v[i + 12] = PICK(t[i + 4], t[i + 12], 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    }
}

// Lane i of the result is the sum of the lanes of v[i].
inline Floats sums(Floats v[LANES]) {
    transpose(v);
    Floats total = v[0];
    for (int i = 1; i < 16; i++) total += v[i];
    return total;
}

#include "plain.h"
#ifdef MOEHUB_AMX
#include "amx.h"
#endif

constexpr int64_t PIECE = 256;          // pairs of one expert that one thread takes at a time
constexpr int64_t KEPT = 1 << 20;       // bytes of y that are to stay in the second cache while experts pass by
constexpr int64_t WORTH = 1 << 18;      // multiplications below which one thread is quicker than several
thread_local Scratch sums_kept, work_kept;

std::vector<Piece> pieces_of(const Linear& linear, const Groups& groups) {
    std::vector<Piece> pieces;
    for (int64_t g = 0; g < groups.count; g++) {
        if (!linear.down[groups.expert[g]]) continue;
        for (int64_t p = groups.begin[g]; p < groups.begin[g + 1]; p += PIECE)
            pieces.push_back({groups.expert[g], p, std::min(p + PIECE, groups.begin[g + 1])});
    }
    return pieces;
}

int64_t width_of(const Linear& linear, const std::vector<Piece>& pieces) {
    int64_t rank = 0;
    for (const Piece& piece : pieces) rank = std::max(rank, linear.rank[piece.expert]);
    return (rank + LANES - 1) / LANES * LANES;
}

int threads_for(int64_t multiplications) {
#ifdef _OPENMP
    return multiplications < WORTH ? 1 : omp_get_max_threads();
#else
    (void)multiplications;
    return 1;
#endif
}

// Columns of y that one thread takes at a time.
int64_t columns_of(int64_t d_out, int64_t tokens, int64_t size, int threads) {
    int64_t cached = KEPT / (tokens * size), shared = (d_out + threads - 1) / threads;
    return std::max<int64_t>(COLUMNS, (std::min(cached, shared) + COLUMNS - 1) / COLUMNS * COLUMNS);
}

// Both passes; `Inner` is how z is kept. `down` and `up` work off one piece.
template <typename Inner, typename T, typename Down, typename Up>
void passes(const Linear& linear, const Groups& groups, int64_t tokens, Down down, Up up) {
    std::vector<Piece> pieces = pieces_of(linear, groups);
    if (pieces.empty()) return;
    int64_t width = width_of(linear, pieces), pairs = groups.begin[groups.count];
    Inner* z = sums_kept.need<Inner>((pairs + LANES) * width);
    int threads = threads_for(pairs * width * (linear.d_in + linear.d_out));
    int64_t columns = columns_of(linear.d_out, tokens, sizeof(T), threads), count = pieces.size();
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < count; i++)
            down(pieces[i], pieces[std::min(i + 1, count - 1)].expert, z, width, work_kept);
#pragma omp for schedule(dynamic)
        for (int64_t first = 0; first < linear.d_out; first += columns)
            for (int64_t i = 0; i < count; i++)
                up(pieces[i], pieces[std::min(i + 1, count - 1)].expert, first,
                   std::min(first + columns, linear.d_out), z, width, work_kept);
    }
}

template <typename T>
void add_plain(const Linear& linear, const Groups& groups, int64_t tokens, const T* x, T* y) {
    passes<float, T>(
        linear, groups, tokens,
        [&](Piece piece, int64_t next, float* z, int64_t width, Scratch&) {
            down_piece(linear, groups, piece, next, x, z, width);
        },
        [&](Piece piece, int64_t next, int64_t first, int64_t last, const float* z, int64_t width, Scratch& scratch) {
            up_piece(linear, groups, piece, next, first, last, z, width, y, scratch);
        });
}

#ifdef MOEHUB_AMX
void add_tiles(const Linear& linear, const Groups& groups, int64_t tokens, const bfloat16* x, bfloat16* y) {
    passes<bfloat16, bfloat16>(
        linear, groups, tokens,
        [&](Piece piece, int64_t next, bfloat16* z, int64_t width, Scratch& scratch) {
            if (piece.end - piece.begin >= FEW) shape_tiles(DEPTH);
            down_piece_tiles(linear, groups, piece, next, x, z, width, scratch);
        },
        [&](Piece piece, int64_t next, int64_t first, int64_t last, const bfloat16* z, int64_t width,
            Scratch& scratch) {
            if (piece.end - piece.begin >= FEW) shape_tiles(width / LANES % 2 ? LANES : DEPTH);
            up_piece_tiles(linear, groups, piece, next, first, last, z, width, y, scratch);
        });
}
#endif

template <typename Work>
int guarded(Work work) {
    try {
        work();
        return 0;
    } catch (const std::bad_alloc&) {
        return 1;
    }
}

}  // namespace

extern "C" {

// Sort the active pairs of a route, [tokens, choices], by expert. `next` is room for [experts + 1] numbers.
// Returns 0, or 1 where there is no such expert.
int moehub_group(int64_t tokens, int64_t choices, int64_t experts, const int64_t* indices, const float* weights,
                  int64_t* next, Groups* groups) {
    std::fill(next, next + experts + 1, 0);
    for (int64_t i = 0; i < tokens * choices; i++) {
        if (weights[i] == 0) continue;
        if (indices[i] < 0 || indices[i] >= experts) return 1;
        next[indices[i] + 1]++;
    }
    groups->count = 0;
    for (int64_t e = 0; e < experts; e++) {
        if (next[e + 1]) {
            groups->expert[groups->count] = e;
            groups->begin[groups->count++] = next[e];
        }
        next[e + 1] += next[e];
    }
    groups->begin[groups->count] = next[experts];
    for (int64_t i = 0; i < tokens * choices; i++) {
        if (weights[i] == 0) continue;
        int64_t at = next[indices[i]]++;
        groups->pair[at] = i;
        groups->token[at] = i / choices;
        groups->weight[at] = weights[i];
    }
    return 0;
}

// Add the experts' contributions to y [tokens, d_out], given x [tokens, d_in]; 0, or 1 where memory is short.
int moehub_add_float32(const Linear* linear, const Groups* groups, int64_t tokens, const float* x, float* y) {
    return guarded([&] { add_plain(*linear, *groups, tokens, x, y); });
}

int moehub_add_bfloat16(const Linear* linear, const Groups* groups, int64_t tokens, const bfloat16* x, bfloat16* y) {
    return guarded([&] {
#ifdef MOEHUB_AMX
        if (tiles_fit(*linear)) return add_tiles(*linear, *groups, tokens, x, y);
#endif
        add_plain(*linear, *groups, tokens, x, y);
    });
}

// Which instructions bfloat16 is multiplied with here.
const char* moehub_bfloat16_with(void) {
#ifdef MOEHUB_AMX
    if (tiles_allowed()) return "AMX";
#endif
    return "vectors";
}
}
