// Stands for the file of this name beside the kernels: the GPU's conversions of half precision, by hand.
#pragma once

static inline float half_to_float(unsigned short bits) {
    const int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    const float size = exponent == 31 ? (mantissa ? NAN : INFINITY)
                       : exponent     ? ldexpf((float)(mantissa + 1024), exponent - 25)
                                      : ldexpf((float)mantissa, -24);
    return bits >> 15 ? -size : size;
}

static inline unsigned short float_to_half(float wide) {
    const unsigned short sign = signbit(wide) ? 0x8000 : 0;
    const float size = fabsf(wide);
    if (isnan(wide)) return 0x7fff;
    if (size >= 65520.0f) return sign | 0x7c00;
    int exponent = -13;
    if (size >= ldexpf(1.0f, -14)) frexpf(size, &exponent);
    const int step = exponent - 11;                      // the last place's power of two
    const int places = (int)rintf(ldexpf(size, -step));  // ties to even, exact otherwise
    return sign | (unsigned short)(places + ((step + 24) << 10));
}
