// Selective scan and causal convolution on a CPU, forward and backward, behind a plain C interface.
//
// Arrays are channel-last. A vector holds LANES neighbouring channels of one token; the states of a channel run one
// after the other, so that nothing crosses lanes until the gradients of B and C are summed. Work is shared out over
// (row, group, block of channels). The backward pass recomputes states from those the forward pass left every CHUNK
// tokens; a few states at a time, so that what a chunk needs stays in the first-level cache.
//
// Compile with -DLANES=16 (AVX-512), 8 (AVX2) or 4 (anything).
#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>
#include <vector>
#include <omp.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#ifndef LANES
#define LANES 4
#endif
#ifndef CHUNK
#define CHUNK 32
#endif

namespace {

constexpr int W = LANES;
constexpr int T = CHUNK;
// States a register tile holds: their recurrences are independent, which hides latency.
constexpr int FORWARD_STATES = W == 16 ? 16 : 8;
constexpr int BACKWARD_STATES = 4;
// Taps of the longest convolution.
constexpr int MOST_TAPS = 8;

typedef float Vector __attribute__((vector_size(4 * W), aligned(4 * W)));
typedef int32_t Integers __attribute__((vector_size(4 * W), aligned(4 * W)));
typedef float Loose __attribute__((vector_size(4 * W), aligned(4), may_alias));
#define INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__)
#define KEEP(v) asm volatile("" : "+v"(v))
#elif defined(__x86_64__)
#define KEEP(v) asm volatile("" : "+x"(v))
#elif defined(__aarch64__)
#define KEEP(v) asm volatile("" : "+w"(v))
#else
#define KEEP(v) asm volatile("" : "+m"(v))
#endif

struct bfloat {
    uint16_t bits;
};
INLINE float widen(float x) { return x; }
INLINE float widen(bfloat x) {
    uint32_t bits = uint32_t(x.bits) << 16;
    float out;
    std::memcpy(&out, &bits, 4);
    return out;
}
INLINE void narrow(float x, float& out) { out = x; }
INLINE void narrow(float x, bfloat& out) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    // Round to nearest even; a NaN stays one.
    out.bits = x != x ? 0x7FC0 : uint16_t((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

INLINE Vector all(float x) { return Vector{} + x; }

INLINE Vector load(const float* p) { return (Vector)(*(const Loose*)p); }
INLINE void store(float* p, Vector v) { *(Loose*)p = (Loose)v; }

#if LANES == 16 && defined(__AVX512F__)
INLINE Vector load(const bfloat* p) {
    return (Vector)_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16));
}
#else
INLINE Vector load(const bfloat* p) {
    Vector v;
    for (int i = 0; i < W; ++i) v[i] = widen(p[i]);
    return v;
}
#endif
#if LANES == 16 && defined(__AVX512BF16__)
INLINE void store(bfloat* p, Vector v) { _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh((__m512)v)); }
#else
INLINE void store(bfloat* p, Vector v) {
    for (int i = 0; i < W; ++i) narrow(v[i], p[i]);
}
#endif

// The last block of a group may be narrower than a vector.
template <class S> INLINE Vector load(const S* p, int width) {
    if (__builtin_expect(width == W, 1)) return load(p);
    Vector v = {};
    for (int i = 0; i < width; ++i) v[i] = widen(p[i]);
    return v;
}
template <class S> INLINE void store(S* p, Vector v, int width) {
    if (__builtin_expect(width == W, 1)) return store(p, v);
    for (int i = 0; i < width; ++i) narrow(v[i], p[i]);
}

// Denormals cost a hundred cycles each and mean nothing here.
struct FlushDenormals {
#if defined(__x86_64__)
    unsigned before = _mm_getcsr();
    FlushDenormals() { _mm_setcsr(before | 0x8040); }
    ~FlushDenormals() { _mm_setcsr(before); }
#endif
};

constexpr float LOG2E = 1.4426950408889634f;

// 2^x: a polynomial of degree 5 on [0, 1), relative error 1e-7.
INLINE Vector exp2_of(Vector x) {
    const Vector c5 = all(1.8775767e-3f), c4 = all(8.9893397e-3f), c3 = all(5.5826318e-2f), c2 = all(2.4015361e-1f),
                 c1 = all(6.9315308e-1f), c0 = all(9.9999994e-1f);
#if LANES == 16 && defined(__AVX512DQ__)
    Vector r = (Vector)_mm512_reduce_ps((__m512)x, 0x09);
    Vector p = ((((c5 * r + c4) * r + c3) * r + c2) * r + c1) * r + c0;
    return (Vector)_mm512_scalef_ps((__m512)p, (__m512)x);
#else
    x = x < -126.f ? all(-126.f) : x;
    x = x > 127.f ? all(127.f) : x;
    Integers n = __builtin_convertvector(x, Integers);
    n += (Integers)(__builtin_convertvector(n, Vector) > x);
    Vector r = x - __builtin_convertvector(n, Vector);
    Vector p = ((((c5 * r + c4) * r + c3) * r + c2) * r + c1) * r + c0;
    return (Vector)((Integers)p + (n << 23));
#endif
}

INLINE Vector sigmoid(Vector x) {
    x = x < -80.f ? all(-80.f) : x;
    return 1.f / (1.f + exp2_of(x * -LOG2E));
}

// log(1 + x) for x >= 0; exact numerator for small x.
INLINE Vector log1p_of(Vector x) {
    Vector y = 1.f + x;
    Integers e = ((Integers)y - (Integers)all(0.70710678f)) >> 23;
    Vector m = (Vector)((Integers)y - (e << 23));
    Vector top = (e == 0) ? x : m - 1.f;
    Vector s = top / (2.f + top), s2 = s * s;
    Vector p = 2.f * s * (1.f + s2 * (0.33333334f + s2 * (0.2f + s2 * (0.14285715f + s2 * 0.11111111f))));
    return p + __builtin_convertvector(e, Vector) * 0.69314718056f;
}
INLINE Vector softplus_of(Vector x) {
    Vector low = x > 20.f ? all(20.f) : x;
    Vector r = log1p_of(exp2_of(low * LOG2E));
    return x > 20.f ? x : r;
}

INLINE float sum(Vector v) {
    float total = 0;
    for (int i = 0; i < W; ++i) total += v[i];
    return total;
}

template <class V> struct Aligned {
    std::unique_ptr<char[]> raw;
    V* data;
    explicit Aligned(size_t count) : raw(new char[count * sizeof(V) + 64]) {
        data = (V*)(((uintptr_t)raw.get() + 63) & ~(uintptr_t)63);
    }
};

}  // namespace

extern "C" {

struct Scan {
    int64_t rows, length, channels, groups, states, forward_groups, softplus, bf16, threads;
    int64_t u_row, u_token, dt_row, dt_token, dy_row, dy_token;  // strides in elements; channels are neighbours
    const void *u, *dt;                                          // (row, token, channel)
    const float *A;                                              // (channel, state)
    const float *B, *C;                                          // (row, token, group, state)
    const float *D, *bias;                                       // (channel) or null
    const uint8_t* border;                                       // (row, token) or null: a new clip begins here
    void* y;                                                     // (row, token, channel)
    float* saved;                                                // (row, chunk, state, channel) or null
    const float* start;                                          // (row, state, channel) or null: the states to go on from
    float* end;                                                  // (row, state, channel) or null: the states behind the last token
    const void* dy;
    void *du, *ddt;       // (row, token, channel)
    float *dA, *dD, *dbias;  // (row, channel, state), (row, channel), (row, channel)
    float *dB, *dC;       // (split, row, token, group, state)
    int64_t split;
};

struct Convolution {
    int64_t rows, length, channels, taps, reverse, bf16, threads;
    int64_t x_row, x_token, y_row, y_token, dy_row, dy_token;
    const void* x;
    const float *weight, *bias;  // (channel, tap), (channel)
    const uint8_t* border;
    void* y;
    const void* dy;
    void* dx;                 // (row, token, channel)
    float *dweight, *dbias;   // (row, tap, channel), (row, channel)
};

}  // extern "C"

namespace {

// Where a scan is: its i-th token in the order of its direction, and whether a border lies before it.
struct Way {
    int64_t length;
    bool backwards;
    const uint8_t* border;
    INLINE int64_t at(const Way& w, int64_t i) { return w.backwards ? w.length - 1 - i : i; }
    INLINE bool fresh(const Way& w, int64_t i) {
        if (!w.border) return false;
        int64_t t = at(w, i);
        return w.backwards ? (t + 1 < w.length && w.border[t + 1]) : w.border[t];
    }
};

// A's rows as vectors, a state at a time, times a factor.
INLINE void columns_of(const float* A, int64_t states, int width, float factor, Vector* out) {
    for (int64_t n = 0; n < states; ++n) {
        Vector a = {};
        for (int i = 0; i < width; ++i) a[i] = A[i * states + n] * factor;
        out[n] = a;
    }
}

// One register tile of NS states over m tokens.
template <int NS>
INLINE void forward_states(int m, int64_t step, const float* B, const float* C, const Vector* A2, const Vector* dt, const Vector* x,
                           const bool* fresh, Vector* h, Vector* y) {
    Vector s[NS];
    for (int n = 0; n < NS; ++n) s[n] = h[n];
    for (int j = 0; j < m; ++j, B += step, C += step) {
        if (__builtin_expect(fresh[j], 0))
            for (int n = 0; n < NS; ++n) s[n] = Vector{};
        Vector d = dt[j], xj = x[j], yj = y[j], yk = {};
#pragma GCC unroll 16
        for (int n = 0; n < NS; ++n) {
            s[n] = exp2_of(d * A2[n]) * s[n] + xj * B[n];
            if (n % 2) yk += s[n] * C[n]; else yj += s[n] * C[n];
        }
        y[j] = yj + yk;
    }
    for (int n = 0; n < NS; ++n) h[n] = s[n];
}

template <class S> void scan_forward(const Scan& p) {
    const int64_t group = p.channels / p.groups, blocks = (group + W - 1) / W, chunks = (p.length + T - 1) / T;
    const S *u = (const S*)p.u, *dt = (const S*)p.dt;
    S* out = (S*)p.y;
#pragma omp parallel num_threads(p.threads)
    {
        FlushDenormals flush;
        Aligned<Vector> own(2 * p.states + 3 * T);
        Vector *A2 = own.data, *h = A2 + p.states, *d = h + p.states, *x = d + T, *y = x + T;
        bool fresh[T];
#pragma omp for schedule(dynamic, 1)
        for (int64_t item = 0; item < p.rows * p.groups * blocks; ++item) {
            int64_t b = item / (p.groups * blocks), g = item / blocks % p.groups, k = item % blocks;
            int64_t c0 = g * group + k * W;
            int width = int(group - k * W < W ? group - k * W : W);
            Way way{p.length, g >= p.forward_groups, p.border ? p.border + b * p.length : nullptr};
            columns_of(p.A + c0 * p.states, p.states, width, LOG2E, A2);
            const int64_t own_states = b * p.states * p.channels + c0;
            for (int64_t n = 0; n < p.states; ++n) h[n] = p.start ? load(p.start + own_states + n * p.channels, width) : Vector{};
            Vector skip = p.D ? load(p.D + c0, width) : Vector{}, bias = p.bias ? load(p.bias + c0, width) : Vector{};
            const int64_t direction = way.backwards ? -1 : 1, step = direction * p.groups * p.states;
            for (int64_t c = 0; c < chunks; ++c) {
                const int64_t i0 = c * T;
                const int m = int(p.length - i0 < T ? p.length - i0 : T);
                if (p.saved) {
                    float* to = p.saved + (b * chunks + c) * p.states * p.channels + c0;
                    for (int64_t n = 0; n < p.states; ++n) store(to + n * p.channels, h[n], width);
                }
                for (int j = 0; j < m; ++j) {
                    const int64_t t = Way::at(way, i0 + j);
                    fresh[j] = Way::fresh(way, i0 + j);
                    Vector uj = load(u + b * p.u_row + t * p.u_token + c0, width);
                    Vector dj = load(dt + b * p.dt_row + t * p.dt_token + c0, width) + bias;
                    d[j] = p.softplus ? softplus_of(dj) : dj;
                    x[j] = d[j] * uj;
                    y[j] = skip * uj;
                }
                const int64_t first = ((b * p.length + Way::at(way, i0)) * p.groups + g) * p.states;
                int64_t n = 0;
                for (; n + FORWARD_STATES <= p.states; n += FORWARD_STATES)
                    forward_states<FORWARD_STATES>(m, step, p.B + first + n, p.C + first + n, A2 + n, d, x, fresh, h + n, y);
                for (; n < p.states; ++n)
                    forward_states<1>(m, step, p.B + first + n, p.C + first + n, A2 + n, d, x, fresh, h + n, y);
                for (int j = 0; j < m; ++j) {
                    const int64_t t = Way::at(way, i0 + j);
                    store(out + (b * p.length + t) * p.channels + c0, y[j], width);
                }
            }
            if (p.end)
                for (int64_t n = 0; n < p.states; ++n) store(p.end + own_states + n * p.channels, h[n], width);
        }
    }
}

// What the backward pass of one chunk and one block of channels keeps for each token.
struct Token {
    Vector dt, u, slope, dy, gB, dd;
};

// One register tile of NS states over a chunk: recompute the states, then go back through them.
template <int NS>
INLINE void backward_states(int m, int64_t step, const float* B, const float* C, const Vector* A, const float* saved, int64_t apart,
                            int width, const bool* fresh, Token* token, Vector* gradient, Vector* dA, Vector* dB, Vector* dC) {
    Vector a[T][NS], h[T + 1][NS];
    {
        Vector s[NS], A2[NS];
        for (int n = 0; n < NS; ++n) {
            s[n] = load(saved + n * apart, width);
            A2[n] = A[n] * LOG2E;
            h[0][n] = s[n];
        }
        const float* Bj = B;
        for (int j = 0; j < m; ++j, Bj += step) {
            Vector d = token[j].dt, x = d * token[j].u;
            const bool cut = fresh[j];
#pragma GCC unroll 16
            for (int n = 0; n < NS; ++n) {
                Vector e = exp2_of(d * A2[n]);
                if (__builtin_expect(cut, 0)) e = Vector{};
                a[j][n] = e;
                s[n] = e * s[n] + x * Bj[n];
                h[j + 1][n] = s[n];
            }
        }
    }
    Vector g[NS], sums[NS];
    for (int n = 0; n < NS; ++n) {
        g[n] = gradient[n];
        sums[n] = dA[n];
    }
    B += (m - 1) * step;
    C += (m - 1) * step;
    for (int j = m - 1; j >= 0; --j, B -= step, C -= step) {
        Token& k = token[j];
        Vector dy = k.dy, d = k.dt, x = d * k.u, gB = k.gB, dd = k.dd;
#pragma GCC unroll 16
        for (int n = 0; n < NS; ++n) {
            Vector v = g[n] + dy * C[n];
            dC[j * NS + n] += dy * h[j + 1][n];
            dB[j * NS + n] += v * x;
            gB += v * B[n];
            v *= a[j][n];
            g[n] = v;
            v *= h[j][n];
            dd += v * A[n];
            sums[n] += v * d;
        }
        k.gB = gB;
        k.dd = dd;
    }
    for (int n = 0; n < NS; ++n) {
        gradient[n] = g[n];
        dA[n] = sums[n];
    }
}

template <class S> void scan_backward(const Scan& p) {
    const int64_t group = p.channels / p.groups, blocks = (group + W - 1) / W, chunks = (p.length + T - 1) / T;
    const S *u = (const S*)p.u, *dt = (const S*)p.dt, *dy = (const S*)p.dy;
    S *du = (S*)p.du, *ddt = (S*)p.ddt;
    const int64_t most = blocks / p.split + 1;
#pragma omp parallel num_threads(p.threads)
    {
        FlushDenormals flush;
        Aligned<Vector> own(most * p.states * 3 + most * 2 + 2 * T * BACKWARD_STATES);
        Aligned<Token> tokens(most * T);
        Vector *As = own.data, *gradient = As + most * p.states, *dA = gradient + most * p.states;
        Vector *dDs = dA + most * p.states, *dbiases = dDs + most, *dB = dbiases + most, *dC = dB + T * BACKWARD_STATES;
        bool fresh[T];
#pragma omp for schedule(dynamic, 1)
        for (int64_t item = 0; item < p.rows * p.groups * p.split; ++item) {
            const int64_t b = item / (p.groups * p.split), g = item / p.split % p.groups, part = item % p.split;
            const int64_t k0 = blocks * part / p.split, k1 = blocks * (part + 1) / p.split;
            Way way{p.length, g >= p.forward_groups, p.border ? p.border + b * p.length : nullptr};
            const int64_t direction = way.backwards ? -1 : 1, step = direction * p.groups * p.states;
            auto width_of = [&](int64_t k) { return int(group - k * W < W ? group - k * W : W); };
            for (int64_t k = k0; k < k1; ++k) {
                columns_of(p.A + (g * group + k * W) * p.states, p.states, width_of(k), 1.f, As + (k - k0) * p.states);
                dDs[k - k0] = dbiases[k - k0] = Vector{};
            }
            for (int64_t i = 0; i < (k1 - k0) * p.states; ++i) gradient[i] = dA[i] = Vector{};
            for (int64_t c = chunks - 1; c >= 0; --c) {
                const int64_t i0 = c * T;
                const int m = int(p.length - i0 < T ? p.length - i0 : T);
                for (int j = 0; j < m; ++j) fresh[j] = Way::fresh(way, i0 + j);
                for (int64_t k = k0; k < k1; ++k) {
                    const int64_t c0 = g * group + k * W;
                    const int width = width_of(k);
                    Vector bias = p.bias ? load(p.bias + c0, width) : Vector{}, total = dDs[k - k0];
                    for (int j = 0; j < m; ++j) {
                        const int64_t t = Way::at(way, i0 + j);
                        Token& q = tokens.data[(k - k0) * T + j];
                        Vector raw = load(dt + b * p.dt_row + t * p.dt_token + c0, width) + bias;
                        q.dt = p.softplus ? softplus_of(raw) : raw;
                        q.slope = p.softplus ? (raw > 20.f ? all(1.f) : sigmoid(raw)) : all(1.f);
                        q.u = load(u + b * p.u_row + t * p.u_token + c0, width);
                        q.dy = load(dy + b * p.dy_row + t * p.dy_token + c0, width);
                        q.gB = q.dd = Vector{};
                        total += q.dy * q.u;
                    }
                    dDs[k - k0] = total;
                }
                const int64_t first = ((b * p.length + Way::at(way, i0)) * p.groups + g) * p.states;
                auto states_at = [&](auto tag, int64_t n) {
                    constexpr int NS = decltype(tag)::value;
                    for (int i = 0; i < m * NS; ++i) dB[i] = dC[i] = Vector{};
                    for (int64_t k = k0; k < k1; ++k) {
                        const int64_t at = (k - k0) * p.states + n;
                        const float* saved = p.saved + ((b * chunks + c) * p.states + n) * p.channels + g * group + k * W;
                        backward_states<NS>(m, step, p.B + first + n, p.C + first + n, As + at, saved, p.channels, width_of(k), fresh,
                                            tokens.data + (k - k0) * T, gradient + at, dA + at, dB, dC);
                    }
                    for (int j = 0; j < m; ++j) {
                        const int64_t t = Way::at(way, i0 + j);
                        const int64_t o = (((part * p.rows + b) * p.length + t) * p.groups + g) * p.states + n;
                        for (int i = 0; i < NS; ++i) {
                            p.dB[o + i] = sum(dB[j * NS + i]);
                            p.dC[o + i] = sum(dC[j * NS + i]);
                        }
                    }
                };
                int64_t n = 0;
                for (; n + BACKWARD_STATES <= p.states; n += BACKWARD_STATES)
                    states_at(std::integral_constant<int, BACKWARD_STATES>{}, n);
                for (; n < p.states; ++n) states_at(std::integral_constant<int, 1>{}, n);
                for (int64_t k = k0; k < k1; ++k) {
                    const int64_t c0 = g * group + k * W;
                    const int width = width_of(k);
                    Vector skip = p.D ? load(p.D + c0, width) : Vector{}, total = dbiases[k - k0];
                    for (int j = 0; j < m; ++j) {
                        const int64_t o = (b * p.length + Way::at(way, i0 + j)) * p.channels + c0;
                        const Token& q = tokens.data[(k - k0) * T + j];
                        Vector raw = (q.dd + q.u * q.gB) * q.slope;
                        store(du + o, q.dt * q.gB + skip * q.dy, width);
                        store(ddt + o, raw, width);
                        total += raw;
                    }
                    dbiases[k - k0] = total;
                }
            }
            for (int64_t k = k0; k < k1; ++k) {
                const int64_t c0 = b * p.channels + g * group + k * W;
                const int width = width_of(k);
                store(p.dD + c0, dDs[k - k0], width);
                store(p.dbias + c0, dbiases[k - k0], width);
                for (int i = 0; i < width; ++i)
                    for (int64_t n = 0; n < p.states; ++n) p.dA[(c0 + i) * p.states + n] = dA[(k - k0) * p.states + n][i];
            }
        }
    }
}

// SiLU of a causal depthwise convolution: tap j looks j tokens back in the order of the direction, not across borders.
template <class S> void convolve(const Convolution& p) {
    const int64_t blocks = (p.channels + W - 1) / W;
    const S* x = (const S*)p.x;
    S* y = (S*)p.y;
    const int taps = int(p.taps);
#pragma omp parallel num_threads(p.threads)
    {
        FlushDenormals flush;
#pragma omp for schedule(static)
        for (int64_t item = 0; item < p.rows * blocks; ++item) {
            const int64_t b = item / blocks, c0 = item % blocks * W;
            const int width = int(p.channels - c0 < W ? p.channels - c0 : W);
            Way way{p.length, p.reverse != 0, p.border ? p.border + b * p.length : nullptr};
            Vector weight[MOST_TAPS], seen[MOST_TAPS] = {}, bias = p.bias ? load(p.bias + c0, width) : Vector{};
            for (int j = 0; j < taps; ++j) {
                weight[j] = Vector{};
                for (int i = 0; i < width; ++i) weight[j][i] = p.weight[(c0 + i) * taps + taps - 1 - j];
            }
            for (int64_t i = 0; i < p.length; ++i) {
                const int64_t t = Way::at(way, i);
                const bool cut = Way::fresh(way, i);
                for (int j = taps - 1; j > 0; --j) seen[j] = cut ? Vector{} : seen[j - 1];
                seen[0] = load(x + b * p.x_row + t * p.x_token + c0, width);
                Vector total = bias;
                for (int j = 0; j < taps; ++j) total += weight[j] * seen[j];
                store(y + b * p.y_row + t * p.y_token + c0, total * sigmoid(total), width);
            }
        }
    }
}

template <class S> void convolve_backward(const Convolution& p) {
    const int64_t blocks = (p.channels + W - 1) / W;
    const S *x = (const S*)p.x, *dy = (const S*)p.dy;
    S* dx = (S*)p.dx;
    const int taps = int(p.taps);
#pragma omp parallel num_threads(p.threads)
    {
        FlushDenormals flush;
#pragma omp for schedule(static)
        for (int64_t item = 0; item < p.rows * blocks; ++item) {
            const int64_t b = item / blocks, c0 = item % blocks * W;
            const int width = int(p.channels - c0 < W ? p.channels - c0 : W);
            Way way{p.length, p.reverse != 0, p.border ? p.border + b * p.length : nullptr};
            Vector weight[MOST_TAPS], seen[MOST_TAPS] = {}, owed[MOST_TAPS] = {}, dweight[MOST_TAPS] = {}, dbias = {};
            Vector bias = p.bias ? load(p.bias + c0, width) : Vector{};
            for (int j = 0; j < taps; ++j) {
                weight[j] = Vector{};
                for (int i = 0; i < width; ++i) weight[j][i] = p.weight[(c0 + i) * taps + taps - 1 - j];
            }
            // owed[j] is the gradient, so far, of the token j back; it is paid when no later token can see it.
            auto pay = [&](int64_t i, Vector gradient) {
                if (i >= 0) store(dx + (b * p.length + Way::at(way, i)) * p.channels + c0, gradient, width);
            };
            for (int64_t i = 0; i < p.length; ++i) {
                const int64_t t = Way::at(way, i);
                const bool cut = Way::fresh(way, i);
                pay(i - taps, owed[taps - 1]);
                for (int j = taps - 1; j > 0; --j) {
                    seen[j] = cut ? Vector{} : seen[j - 1];
                    owed[j] = owed[j - 1];
                }
                seen[0] = load(x + b * p.x_row + t * p.x_token + c0, width);
                owed[0] = Vector{};
                Vector total = bias;
                for (int j = 0; j < taps; ++j) total += weight[j] * seen[j];
                Vector s = sigmoid(total);
                Vector g = load(dy + b * p.dy_row + t * p.dy_token + c0, width) * s * (1.f + total * (1.f - s));
                dbias += g;
                // Tokens beyond a border were replaced by zeros: they are owed nothing.
                int reach = taps;
                if (way.border) {
                    reach = 1;
                    while (reach < taps && reach <= i && !Way::fresh(way, i - reach + 1)) ++reach;
                }
                for (int j = 0; j < taps; ++j) {
                    dweight[j] += g * seen[j];
                    if (j < reach) owed[j] += g * weight[j];
                }
            }
            for (int j = taps - 1; j >= 0; --j) pay(p.length - 1 - j, owed[j]);
            for (int j = 0; j < taps; ++j) store(p.dweight + (b * taps + taps - 1 - j) * p.channels + c0, dweight[j], width);
            store(p.dbias + b * p.channels + c0, dbias, width);
        }
    }
}

}  // namespace

extern "C" {

int64_t lanes() { return W; }
int64_t chunk() { return T; }
int64_t most_taps() { return MOST_TAPS; }

void scan_forward(const Scan* p) { p->bf16 ? scan_forward<bfloat>(*p) : scan_forward<float>(*p); }
void scan_backward(const Scan* p) { p->bf16 ? scan_backward<bfloat>(*p) : scan_backward<float>(*p); }
void convolution_forward(const Convolution* p) { p->bf16 ? convolve<bfloat>(*p) : convolve<float>(*p); }
void convolution_backward(const Convolution* p) { p->bf16 ? convolve_backward<bfloat>(*p) : convolve_backward<float>(*p); }

// Vector multiply-adds that one thread does in `rounds` turns of 16 independent chains: what the arithmetic allows.
float multiply_adds(int64_t rounds) {
    Vector x[16], f = all(0.999999f), c = all(1e-6f);
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) x[i] = all(1.f + i);
    for (int64_t r = 0; r < rounds; ++r) {
#pragma GCC unroll 16
        for (int i = 0; i < 16; ++i) {
            x[i] = x[i] * f + c;
            KEEP(x[i]);  // or the compiler would work the loop out beforehand
        }
    }
    Vector total = {};
#pragma GCC unroll 16
    for (int i = 0; i < 16; ++i) total += x[i];
    return sum(total);
}

}  // extern "C"
