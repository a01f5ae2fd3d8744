// What a kernel's source needs of CUDA when a host compiler builds it; device.cpp is the device.
#pragma once
#include <math.h>

#define __global__
#define __device__
#define __shared__

struct Index {
    unsigned x, y, z;
};
extern Index threadIdx, blockIdx, blockDim, gridDim;

void __syncthreads();
void __syncwarp();
float __shfl_xor_sync(unsigned mask, float value, int distance);
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }

struct Kernel {
    const char* name;
    void (*run)(const void* arguments);
};
extern const Kernel kernels[];  // the last one has no name

template <typename Arguments>
void call(void (*kernel)(Arguments), const void* arguments) {
    kernel(*static_cast<const Arguments*>(arguments));
}
