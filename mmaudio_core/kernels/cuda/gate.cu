// Gated residual connections, alone and with the adaptive layer norm that follows. See mmaudio_core/kernels/gate.py.
#include "rows.cuh"

struct GateArguments {
    Tokens x, y;
    Table gate, shift, scale;  // the last two only where the norm follows
    RowIndex rows;
    void *total, *normed;
    int64 tokens;
    int width;
};

template <int N, typename T, typename M>
__device__ inline void add(const GateArguments& a, Place at, int64 row, float (&x)[HELD / N][N]) {
    float y[HELD / N][N], gate[HELD / N][N];
    load_token<N, T>(a.x, at, a.width, x);
    load_token<N, T>(a.y, at, a.width, y);
    load_modulation<N, M>(a.gate, row, a.width, gate);
#pragma unroll
    for (int group = 0; group < HELD / N; group++)
#pragma unroll
        for (int i = 0; i < N; i++) x[group][i] += gate[group][i] * y[group][i];
    store_token<N, T>(x, a.total, a.width);
}

template <int N, typename T, typename M>
__device__ inline void sum_only(const GateArguments& a) {
    const Place at = place(a.tokens);
    float x[HELD / N][N];
    add<N, T, M>(a, at, table_row(a.rows, at), x);
}

template <int N, typename T, typename M>
__device__ inline void sum_and_norm(const GateArguments& a) {
    const Place at = place(a.tokens);
    const int64 row = table_row(a.rows, at);
    float x[HELD / N][N], shift[HELD / N][N], scale[HELD / N][N];
    load_modulation<N, M>(a.shift, row, a.width, shift);
    load_modulation<N, M>(a.scale, row, a.width, scale);
    add<N, T, M>(a, at, row, x);
    // The norm is of the sum as it was stored.
#pragma unroll
    for (int group = 0; group < HELD / N; group++)
#pragma unroll
        for (int i = 0; i < N; i++) x[group][i] = rounded<T>(x[group][i]);
    modulate<N>(x, shift, scale, a.width);
    store_token<N, T>(x, a.normed, a.width);
}

extern "C" __global__ void gated_add(const GateArguments a) { sum_only<WIDTH<ELEMENT>, ELEMENT, TABLE>(a); }
extern "C" __global__ void gated_add_adaln(const GateArguments a) { sum_and_norm<WIDTH<ELEMENT>, ELEMENT, TABLE>(a); }
