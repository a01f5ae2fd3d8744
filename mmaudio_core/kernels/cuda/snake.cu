// Anti-aliased snake in one pass, in polyphase form. See mmaudio_core/kernels/snake.py.
//
// Pair m holds the activation at the doubled rate's samples 2m + 1 and 2m + 2; both come from x[m - 2] .. x[m + 3]. Output n
// comes from the pairs n - 3 .. n + 2. A thread walks along time over 6 * chunks - 5 outputs with the last six inputs and the
// last six pairs in registers. That number is odd, so walkers side by side in shared memory do not meet in one bank.
#include "common.cuh"

constexpr int STEPS = 6;        // inputs, and pairs, in a walker's window
constexpr int LEFT = 8;         // what is staged before the first output: 5 inputs are needed, 8 keep 16 bytes aligned
constexpr int RIGHT = 8;        // and after the last
constexpr int TIME_WARPS = 4;   // of a block of the kernel along time
constexpr float FAR = 65536.0f; // arguments from here on are reduced in double

struct SnakeArguments {
    const void* x;
    int64 x_batch, x_channel, x_time;
    void* out;
    int64 out_batch, out_channel, out_time;
    const float *alpha, *inverse_beta, *taps;
    int64 batch, channels, length;
    int chunks;
};

struct Filters {
    float up_odd[STEPS], up_even[STEPS];  // times two, as every second input of the doubled rate is zero
    float down[2 * STEPS];
};

__device__ inline Filters filters(const float* taps) {
    Filters f;
#pragma unroll
    for (int i = 0; i < STEPS; i++) {
        f.up_odd[i] = 2.0f * taps[2 * i];
        f.up_even[i] = 2.0f * taps[2 * i + 1];
        f.down[2 * i] = taps[2 * i];
        f.down[2 * i + 1] = taps[2 * i + 1];
    }
    return f;
}

// sin(x)^2, whose period is pi. The rest of the division by pi is exact to 1e-7 (pi as a sum of two floats, of two doubles
// where x is large); on it sin is a polynomial with relative error 6e-9. The library's sin would need local memory.
__device__ inline float sine_squared(float x) {
    float rest;
    if (fabsf(x) < FAR) {
        const float turns = rintf(x * 0.318309886f);
        rest = fmaf(-turns, -8.74227766e-8f, fmaf(-turns, 3.14159274f, x));
    } else {
        const double turns = rint((double)x * 0.31830988618379067);
        rest = (float)fma(-turns, 1.2246467991473532e-16, fma(-turns, 3.141592653589793, (double)x));
        if (fabsf(rest) > 1.6f) rest = 0.0f;  // x is so large that its neighbours are many periods away
    }
    const float square = rest * rest;
    float p = fmaf(square, 2.60576090e-6f, -1.98095945e-4f);
    p = fmaf(p, square, 8.33306614e-3f);
    p = fmaf(p, square, -1.66666595e-1f);
    const float sine = fmaf(rest * square, p, rest);
    return sine * sine;
}

// Where a walker stands: whether at the first output of all, and at which of its steps the last pair of all is.
struct Span {
    bool at_start;
    int last;
};

__device__ inline Span span(int64 first, int64 length) {
    const int64 last = length + 2 - first;  // step i makes pair first - 3 + i, and the last pair is length - 1
    return {first == 0, last > 0x7fffffff ? 0x7fffffff : (int)last};
}

struct Snake {
    float alpha, inverse_beta;
};

// Window of one channel: input k is at k % 6, pair i at i % 6, both counted from the walker's first.
struct Window {
    float input[STEPS], odd[STEPS], even[STEPS];
};

__device__ inline float activate(float x, const Snake& a) { return fmaf(sine_squared(x * a.alpha), a.inverse_beta, x); }

// The pair of step ``done + STEP``, and what becomes of it at the ends: the doubled rate's first sample stands for all before
// it, and its last one for all after it.
template <int STEP>
__device__ inline void make_pair(Window& w, const Snake& snake, const Filters& f, const Span& at, int done) {
    float odd = 0.0f, even = 0.0f;
#pragma unroll
    for (int s = 0; s < STEPS; s++) {
        const float x = w.input[(STEP + 5 - s + STEPS) % STEPS];
        odd = fmaf(f.up_odd[s], x, odd);
        even = fmaf(f.up_even[s], x, even);
    }
    odd = activate(odd, snake);
    even = activate(even, snake);
    if (done + STEP > at.last) odd = w.even[(STEP + 5) % STEPS];
    if (done + STEP >= at.last) even = odd;
    w.odd[STEP] = odd;
    w.even[STEP] = even;
    if (STEP == 2 && done == 0 && at.at_start) {
#pragma unroll
        for (int i = 0; i < 3; i++) w.odd[i] = w.even[i] = even;
    }
}

template <int STEP>
__device__ inline float output(const Window& w, const Filters& f) {
    float y = 0.0f;
#pragma unroll
    for (int j = 0; j < STEPS; j++) {
        y = fmaf(f.down[2 * j], w.odd[(STEP + 1 + j) % STEPS], y);
        y = fmaf(f.down[2 * j + 1], w.even[(STEP + 1 + j) % STEPS], y);
    }
    return y;
}

// One step of N channels: the next input, the pair that it completes, and from the sixth step on an output.
template <int N, int STEP, typename Write>
__device__ inline void take_step(
    Window (&w)[N],
    const Snake (&snakes)[N],
    const Filters& f,
    const Span& at,
    const float (&next)[N],
    int done,
    const Write& write
) {
    float y[N];
#pragma unroll
    for (int i = 0; i < N; i++) {
        w[i].input[(STEP + 5) % STEPS] = next[i];
        make_pair<STEP>(w[i], snakes[i], f, at, done);
        y[i] = output<STEP>(w[i], f);
    }
    if (STEP == 5 || done > 0) write(done + STEP - 5, y);
}

// ``read(k, to)`` gives the inputs first - 5 + k, the first or last one beyond the ends; ``write(n, y)`` takes output first + n.
template <int N, typename Read, typename Write>
__device__ inline void walk(
    const Snake (&snakes)[N], const float* taps, const Span& at, int chunks, const Read& read, const Write& write
) {
    const Filters f = filters(taps);
    Window w[N];
#pragma unroll
    for (int k = 0; k < STEPS - 1; k++) {
        float x[N];
        read(k, x);
#pragma unroll
        for (int i = 0; i < N; i++) w[i].input[k] = x[i];
    }
    for (int chunk = 0; chunk < chunks; chunk++) {
        const int done = chunk * STEPS;
        float next[STEPS][N];
#pragma unroll
        for (int k = 0; k < STEPS; k++) read(done + k + STEPS - 1, next[k]);
        take_step<N, 0>(w, snakes, f, at, next[0], done, write);
        take_step<N, 1>(w, snakes, f, at, next[1], done, write);
        take_step<N, 2>(w, snakes, f, at, next[2], done, write);
        take_step<N, 3>(w, snakes, f, at, next[3], done, write);
        take_step<N, 4>(w, snakes, f, at, next[4], done, write);
        take_step<N, 5>(w, snakes, f, at, next[5], done, write);
    }
}

__device__ inline int64 clamped(int64 position, int64 length) {
    return position < 0 ? 0 : position >= length ? length - 1 : position;
}

// Time contiguous: a warp takes 32 walkers side by side, staged in shared memory. N > 1: rows start on 16 bytes.
template <int N, typename T>
__device__ inline void along_time(const SnakeArguments& a) {
    const int run = STEPS * a.chunks - 5, tile = 32 * run, lane = threadIdx.x % 32;
    const int64 tiles = (a.length + tile - 1) / tile;
    const int64 job = (int64)blockIdx.x * TIME_WARPS + threadIdx.x / 32;
    if (job >= a.batch * a.channels * tiles) return;  // a whole warp
    const int64 sample = job / tiles / a.channels, channel = job / tiles % a.channels, first = job % tiles * tile;
    const T* x = static_cast<const T*>(a.x) + sample * a.x_batch + channel * a.x_channel;
    T* out = static_cast<T*>(a.out) + sample * a.out_batch + channel * a.out_channel;
    const int staged_size = LEFT + tile + RIGHT;
    float* staged = shared + (int)threadIdx.x / 32 * (staged_size + tile * (int)sizeof(T) / 4);
    T* result = reinterpret_cast<T*>(staged + staged_size);

    for (int at = lane * N; at < staged_size; at += 32 * N) {
        const int64 position = first - LEFT + at;
        float values[N];
        if (position >= 0 && position + N <= a.length) {
            load<N>(x + position, values);
        } else {
#pragma unroll
            for (int i = 0; i < N; i++) values[i] = widen(x[clamped(position + i, a.length)]);
        }
        store<N>(values, staged + at);
    }
    __syncwarp();
    const Snake snakes[1] = {{a.alpha[channel], a.inverse_beta[channel]}};
    const float* inputs = staged + lane * run + LEFT - 5;
    const auto read = [&](int k, float (&to)[1]) { to[0] = inputs[k]; };
    const auto write = [&](int n, const float (&y)[1]) { narrow(y[0], result[lane * run + n]); };
    walk(snakes, a.taps, span(first + lane * run, a.length), a.chunks, read, write);
    __syncwarp();
    for (int at = lane * N; at < tile; at += 32 * N) {
        const int64 position = first + at;
        if (position + N <= a.length) {
            copy<N>(result + at, out + position);
        } else {
            for (int i = 0; i < N && position + i < a.length; i++) out[position + i] = result[at + i];
        }
    }
}

// Channels contiguous (N = 2), or any strides (N = 1): threads side by side take channels side by side.
template <int N, typename T>
__device__ inline void along_channels(const SnakeArguments& a) {
    const int run = STEPS * a.chunks - 5;
    const int64 groups = a.channels / N, runs = (a.length + run - 1) / run;
    const int64 job = (int64)blockIdx.x * blockDim.x + threadIdx.x;
    if (job >= a.batch * runs * groups) return;
    const int64 channel = job % groups * N, first = job / groups % runs * run, sample = job / groups / runs;
    const T* x = static_cast<const T*>(a.x) + sample * a.x_batch + channel * a.x_channel;
    T* out = static_cast<T*>(a.out) + sample * a.out_batch + channel * a.out_channel;
    Snake snakes[N];
#pragma unroll
    for (int i = 0; i < N; i++) snakes[i] = {a.alpha[channel + i], a.inverse_beta[channel + i]};
    const auto read = [&](int k, float (&to)[N]) {
        load<N>(x + clamped(first - 5 + k, a.length) * a.x_time, to);
    };
    const auto write = [&](int n, const float (&y)[N]) {
        if (first + n < a.length) store<N>(y, out + (first + n) * a.out_time);
    };
    walk(snakes, a.taps, span(first, a.length), a.chunks, read, write);
}

extern "C" __global__ void snake_time(const SnakeArguments a) { along_time<WIDTH<ELEMENT>, ELEMENT>(a); }
extern "C" __global__ void snake_channels(const SnakeArguments a) { along_channels<ALIGNED ? 2 : 1, ELEMENT>(a); }
