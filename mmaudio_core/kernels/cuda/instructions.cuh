// Conversions that are one instruction of the GPU. A file of its own, so that a host compiler can be given another one.
#pragma once

__device__ inline float half_to_float(unsigned short bits) {
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(bits));
    return wide;
}

__device__ inline unsigned short float_to_half(float wide) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(wide));
    return bits;
}

#if __CUDA_ARCH__ >= 800
#define HAS_BFLOAT_INSTRUCTION
__device__ inline unsigned short float_to_bfloat(float wide) {
    unsigned short bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(wide));
    return bits;
}
#endif
