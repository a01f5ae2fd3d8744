// From a packed projection to heads: splitting, RMS norm and rotation in one pass. See mmaudio_core/kernels/heads.py.
//
// 8 (float32: 16) neighbouring threads make q, k and v of one head of one token, each thread 16 bytes of every output.
#include "common.cuh"

constexpr int HEAD_DIM = 64;
constexpr float RMS_EPS = 1.1920928955078125e-7f;  // of float32, as torch.finfo has it

// Shared tensor (B, H, N, 64), last stride 1, at its first token to write.
struct Heads {
    void* data;  // null: not wanted
    int64 batch, head, token;
};

struct Weight {
    const void* data;  // (64,)
    int64 stride;
};

struct HeadsArguments {
    const void* packed;
    int64 packed_batch, packed_token, packed_channel;
    Heads q, k, v;
    Weight q_weight, k_weight;
    const float* rope;  // (L, 32, 2); null: no rotation
    int64 rope_token, rope_pair, rope_part;
    int64 tokens, rows;  // L, and B * L * H
    int heads;
};

template <int N, typename T>
__device__ inline void load_strided(const T* from, int64 stride, float (&to)[N]) {
    if constexpr (ALIGNED) {
        load<N>(from, to);
    } else {
#pragma unroll
        for (int i = 0; i < N; i++) to[i] = widen(from[i * stride]);
    }
}

template <int N, typename T>
__device__ inline void store_head(const float (&from)[N], const Heads& to, int64 sample, int64 token, int head, int channel) {
    T* row = static_cast<T*>(to.data) + sample * to.batch + head * to.head + token * to.token + channel;
    if constexpr (ALIGNED) {
        store<N>(from, row);
    } else {
#pragma unroll
        for (int i = 0; i < N; i++) narrow(from[i], row[i]);
    }
}

// Norm over the 64 channels, which N a thread LANES threads hold, then rotation of the pairs (2i, 2i + 1).
template <typename M, int N>
__device__ inline void turn(float (&x)[N], const Weight& weights, bool rotated, const float (&rope)[N], int channel) {
    float squares = 0.0f;
#pragma unroll
    for (int i = 0; i < N; i++) squares += x[i] * x[i];
    const float factor = rsqrtf(lanes_sum<HEAD_DIM / N>(squares) / (float)HEAD_DIM + RMS_EPS);
    float weight[N];
    load_strided(static_cast<const M*>(weights.data) + channel * weights.stride, weights.stride, weight);
#pragma unroll
    for (int i = 0; i < N; i++) x[i] *= factor * weight[i];
    if (!rotated) return;
#pragma unroll
    for (int i = 0; i < N; i += 2) {
        const float even = x[i], odd = x[i + 1];
        x[i] = even * rope[i] - odd * rope[i + 1];
        x[i + 1] = even * rope[i + 1] + odd * rope[i];
    }
}

template <bool INTERLEAVED, typename T, typename M>
__device__ inline void split_heads(const HeadsArguments& a) {
    constexpr int N = VECTOR<T>, LANES = HEAD_DIM / N;
    const int64 wanted = ((int64)blockIdx.x * blockDim.x + threadIdx.x) / LANES;
    // All threads of a warp take part in its sums; those past the end read the last row and write nothing.
    const bool inside = wanted < a.rows;
    const int64 row = inside ? wanted : a.rows - 1;
    const int head = (int)(row % a.heads);
    const int64 token = row / a.heads % a.tokens, sample = row / a.heads / a.tokens;
    const int channel = (int)threadIdx.x % LANES * N;
    const T* packed = static_cast<const T*>(a.packed) + sample * a.packed_batch + token * a.packed_token;
    const bool with_q = a.q.data != nullptr;
    float q[N], k[N], v[N], rope[N];

    if constexpr (INTERLEAVED) {
        float parts[3 * N];
        const int64 first = ((int64)head * HEAD_DIM + channel) * 3;
        load_strided(packed + first * a.packed_channel, a.packed_channel, parts);
#pragma unroll
        for (int i = 0; i < N; i++) q[i] = parts[3 * i], k[i] = parts[3 * i + 1], v[i] = parts[3 * i + 2];
    } else {
        const int64 part = (int64)a.heads * HEAD_DIM * a.packed_channel;
        const T* first = packed + ((int64)head * HEAD_DIM + channel) * a.packed_channel;
        const T* keys = with_q ? first + part : first;
        if (with_q) load_strided(first, a.packed_channel, q);
        load_strided(keys, a.packed_channel, k);
        load_strided(keys + part, a.packed_channel, v);
    }
    if (a.rope) {
        const float* turns = a.rope + token * a.rope_token + channel / 2 * a.rope_pair;
        if constexpr (ALIGNED) {
            load<N>(turns, rope);
        } else {
#pragma unroll
            for (int i = 0; i < N; i++) rope[i] = turns[i / 2 * a.rope_pair + i % 2 * a.rope_part];
        }
    }
    if (with_q) turn<M>(q, a.q_weight, a.rope != nullptr, rope, channel);
    turn<M>(k, a.k_weight, a.rope != nullptr, rope, channel);
    if (!inside) return;
    if (with_q) store_head<N, T>(q, a.q, sample, token, head, channel);
    store_head<N, T>(k, a.k, sample, token, head, channel);
    store_head<N, T>(v, a.v, sample, token, head, channel);
}

extern "C" __global__ void heads_parts(const HeadsArguments a) { split_heads<false, ELEMENT, TABLE>(a); }
extern "C" __global__ void heads_interleaved(const HeadsArguments a) { split_heads<true, ELEMENT, TABLE>(a); }
