// Element types, 16-byte accesses and sums over a block.
// Includes nothing of the CUDA toolkit: on Windows torch brings the compiler, but not cuda_fp16.h and cuda_bf16.h.
//
// Every compilation is of one case, defined on the command line: ELEMENT is float, Half or BFloat, TABLE the type of learned
// or computed scales (ELEMENT or float), ALIGNED true or false.
#pragma once
#include "instructions.cuh"

typedef long long int64;  // offsets and strides count elements

struct Half {
    unsigned short bits;
};

struct BFloat {
    unsigned short bits;
};

struct alignas(16) Words {
    unsigned int at[4];
};

extern __shared__ float shared[];

__device__ inline float bits_to_float(unsigned int bits) {
    union {
        unsigned int bits;
        float wide;
    } both;
    both.bits = bits;
    return both.wide;
}

__device__ inline unsigned int float_to_bits(float wide) {
    union {
        unsigned int bits;
        float wide;
    } both;
    both.wide = wide;
    return both.bits;
}

#ifndef HAS_BFLOAT_INSTRUCTION
// To the nearest, ties to even. NaN is made quiet first: the addition could carry it to infinity or zero.
__device__ inline unsigned short float_to_bfloat(float wide) {
    unsigned int bits = float_to_bits(wide);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (unsigned short)((bits >> 16) | 0x40u);
    return (unsigned short)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
#endif

__device__ inline float widen(float x) { return x; }
__device__ inline float widen(Half x) { return half_to_float(x.bits); }
__device__ inline float widen(BFloat x) { return bits_to_float((unsigned int)x.bits << 16); }

__device__ inline void narrow(float wide, float& x) { x = wide; }
__device__ inline void narrow(float wide, Half& x) { x.bits = float_to_half(wide); }
__device__ inline void narrow(float wide, BFloat& x) { x.bits = float_to_bfloat(wide); }

template <typename T>
__device__ inline float rounded(float wide) {
    T x;
    narrow(wide, x);
    return widen(x);
}

// How many elements are accessed at once: 16 bytes where the launcher found all addresses fit for it (ALIGNED), else one.
template <typename T>
constexpr int VECTOR = 16 / (int)sizeof(T);
template <typename T>
constexpr int WIDTH = ALIGNED ? VECTOR<T> : 1;

// N neighbours in accesses of 16 bytes, or in one of 4 or 8; ``from`` is a multiple of those.
template <int N, typename T>
__device__ inline void load(const T* from, float (&to)[N]) {
    constexpr int BYTES = N * (int)sizeof(T), ACCESS = BYTES % 16 == 0 ? 16 : BYTES <= 8 ? BYTES : (int)sizeof(T);
    struct alignas(ACCESS) Piece {
        T at[ACCESS / sizeof(T)];
    };
#pragma unroll
    for (int i = 0; i < BYTES / ACCESS; i++) {
        const Piece piece = reinterpret_cast<const Piece*>(from)[i];
#pragma unroll
        for (int j = 0; j < ACCESS / (int)sizeof(T); j++) to[i * (ACCESS / (int)sizeof(T)) + j] = widen(piece.at[j]);
    }
}

// Rounded elements as words of 32 bits, put together by hand: compilers store the fields of a union piece by piece.
__device__ inline void pack(const float* from, float*, unsigned int& word) { word = float_to_bits(from[0]); }

template <typename T>
__device__ inline void pack(const float* from, T*, unsigned int& word) {
    T low, high;
    narrow(from[0], low);
    narrow(from[1], high);
    word = low.bits | (unsigned int)high.bits << 16;
}

template <int N, typename T>
__device__ inline void store(const float (&from)[N], T* to) {
    constexpr int BYTES = N * (int)sizeof(T), PER_WORD = 4 / (int)sizeof(T);
    if constexpr (BYTES % 16 == 0) {
#pragma unroll
        for (int i = 0; i < BYTES / 16; i++) {
            Words words;
#pragma unroll
            for (int j = 0; j < 4; j++) pack(from + (4 * i + j) * PER_WORD, to, words.at[j]);
            reinterpret_cast<Words*>(to)[i] = words;
        }
    } else if constexpr (BYTES == 8) {
        unsigned int low, high;
        pack(from, to, low);
        pack(from + PER_WORD, to, high);
        *reinterpret_cast<unsigned long long*>(to) = low | (unsigned long long)high << 32;
    } else if constexpr (BYTES == 4) {
        pack(from, to, *reinterpret_cast<unsigned int*>(to));
    } else {
#pragma unroll
        for (int i = 0; i < N; i++) narrow(from[i], to[i]);
    }
}

// N neighbours as they are; both addresses are multiples of N elements' bytes, 16 or one element.
template <int N, typename T>
__device__ inline void copy(const T* from, T* to) {
    if constexpr (N * sizeof(T) == 16) {
        *reinterpret_cast<Words*>(to) = *reinterpret_cast<const Words*>(from);
    } else {
        *to = *from;
    }
}

// Sum over LANES neighbouring threads of a warp, a power of two, the same bits in each of them. All 32 have to call it.
template <int LANES>
__device__ inline float lanes_sum(float value) {
#pragma unroll
    for (int distance = LANES / 2; distance > 0; distance /= 2) value += __shfl_xor_sync(0xffffffffu, value, distance);
    return value;
}

// Sum over the block, whose size is a multiple of 32. ``partial`` is shared memory of one float for each warp; a second sum
// needs another one, as no barrier follows the reading.
__device__ inline float block_sum(float value, float* partial) {
    value = lanes_sum<32>(value);
    const int warps = blockDim.x / 32;
    if (warps == 1) return value;
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
    __syncthreads();
    value = 0.0f;
    for (int warp = 0; warp < warps; warp++) value += partial[warp];
    return value;
}
