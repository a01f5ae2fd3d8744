// What the kernels share that give a block to each token: where a thread's channels are, and the layer norm over the token.
#pragma once
#include "common.cuh"

constexpr int HELD = 16;         // channels that a thread keeps in registers
constexpr int MOST_WARPS = 8;    // so D is at most 8 * 32 * 16 = 4096
constexpr float LAYER_NORM_EPS = 1e-5f;

// A tensor (B, L, D), or with ``token`` the row of a table for each token. Strides in elements.
struct Tokens {
    const void* data;
    int64 batch, token, channel;
};

// Modulations (R, D), last stride 1.
struct Table {
    const void* data;
    int64 row;
};

struct RowIndex {
    const int* data;  // null: row b for sample b
    int64 batch, token;
};

struct Place {
    int64 sample, token;
};

__device__ inline Place place(int64 tokens) {
    const int64 block = blockIdx.x;
    return {block / tokens, block % tokens};
}

__device__ inline int64 table_row(const RowIndex& rows, Place at) {
    return rows.data ? (int64)rows.data[at.sample * rows.batch + at.token * rows.token] : at.sample;
}

// A thread holds HELD / N groups of N neighbouring channels; the block reads groups side by side.
// N > 1 means 16-byte accesses, channel stride 1 and D a multiple of N.
template <int N>
__device__ inline int first_channel(int group) {
    return (group * (int)blockDim.x + (int)threadIdx.x) * N;
}

template <int N, typename T>
__device__ inline void load_row(const T* row, int64 stride, int width, float (&to)[HELD / N][N]) {
#pragma unroll
    for (int group = 0; group < HELD / N; group++) {
        const int channel = first_channel<N>(group);
        if (channel < width) {
            load<N>(row + (N > 1 ? (int64)channel : channel * stride), to[group]);
        } else {
#pragma unroll
            for (int i = 0; i < N; i++) to[group][i] = 0.0f;
        }
    }
}

template <int N, typename T>
__device__ inline void load_token(const Tokens& x, Place at, int width, float (&to)[HELD / N][N]) {
    load_row<N>(static_cast<const T*>(x.data) + at.sample * x.batch + at.token * x.token, x.channel, width, to);
}

template <int N, typename M>
__device__ inline void load_modulation(const Table& table, int64 row, int width, float (&to)[HELD / N][N]) {
    load_row<N>(static_cast<const M*>(table.data) + row * table.row, 1, width, to);
}

// Outputs are contiguous (B, L, D).
template <int N, typename T>
__device__ inline void store_token(const float (&from)[HELD / N][N], void* out, int width) {
    T* row = static_cast<T*>(out) + (int64)blockIdx.x * width;
#pragma unroll
    for (int group = 0; group < HELD / N; group++) {
        const int channel = first_channel<N>(group);
        if (channel < width) store<N>(from[group], row + channel);
    }
}

// x becomes its layer norm times (1 + scale) plus shift. The variance is taken of the differences from the mean.
template <int N>
__device__ inline void modulate(
    float (&x)[HELD / N][N], const float (&shift)[HELD / N][N], const float (&scale)[HELD / N][N], int width
) {
    float sum = 0.0f;
#pragma unroll
    for (int group = 0; group < HELD / N; group++)
#pragma unroll
        for (int i = 0; i < N; i++) sum += x[group][i];
    const float mean = block_sum(sum, shared) / (float)width;
    float squares = 0.0f;
#pragma unroll
    for (int group = 0; group < HELD / N; group++) {
        const bool inside = first_channel<N>(group) < width;
#pragma unroll
        for (int i = 0; i < N; i++) {
            x[group][i] -= mean;
            squares += inside ? x[group][i] * x[group][i] : 0.0f;
        }
    }
    const float factor = rsqrtf(block_sum(squares, shared + MOST_WARPS) / (float)width + LAYER_NORM_EPS);
#pragma unroll
    for (int group = 0; group < HELD / N; group++)
#pragma unroll
        for (int i = 0; i < N; i++) x[group][i] = x[group][i] * factor * (1.0f + scale[group][i]) + shift[group][i];
}
