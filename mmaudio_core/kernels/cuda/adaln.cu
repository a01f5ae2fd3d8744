// Adaptive layer norm: one block for each token, the token in registers. See mmaudio_core/kernels/adaln.py.
#include "rows.cuh"

struct AdalnArguments {
    Tokens x;
    Table shift, scale;
    RowIndex rows;
    void* out;
    int64 tokens;
    int width;
};

template <int N, typename T, typename M>
__device__ inline void normalise(const AdalnArguments& a) {
    const Place at = place(a.tokens);
    const int64 row = table_row(a.rows, at);
    float x[HELD / N][N], shift[HELD / N][N], scale[HELD / N][N];
    load_token<N, T>(a.x, at, a.width, x);
    load_modulation<N, M>(a.shift, row, a.width, shift);
    load_modulation<N, M>(a.scale, row, a.width, scale);
    modulate<N>(x, shift, scale, a.width);
    store_token<N, T>(x, a.out, a.width);
}

extern "C" __global__ void adaln(const AdalnArguments a) { normalise<WIDTH<ELEMENT>, ELEMENT, TABLE>(a); }
