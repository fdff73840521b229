// What the kernels use of CUDA's cuda_fp16.h: half numbers as they lie in memory, and to float.
#pragma once

#include "cuda_on_cpu.h"

struct __half {
    uint16_t bits;
};

struct __align__(4) __half2 {
    __half x, y;
};

inline float __half2float(__half half) {
    const int exponent = (half.bits >> 10) & 31;
    const int fraction = half.bits & 1023;
    float magnitude;
    if (exponent == 0) {
        magnitude = std::ldexp(static_cast<float>(fraction), -24);
    } else if (exponent == 31) {
        magnitude = fraction ? NAN : INFINITY;
    } else {
        magnitude = __uint_as_float(static_cast<unsigned>((exponent + 112) << 23 | fraction << 13));
    }
    return half.bits & 0x8000 ? -magnitude : magnitude;
}

inline float2 __half22float2(__half2 pair) {
    return float2{__half2float(pair.x), __half2float(pair.y)};
}
