// CUDA's keywords and built-ins for an ordinary C++ compiler, so that a .cu file, unchanged, runs
// on a CPU. Included ahead of the source on the compiler's command line; fibers.cpp is the rest.
//
// Every CUDA thread is a fiber. A fiber runs until it must wait (__syncthreads, __syncwarp, a
// shuffle); which one runs next is drawn from a seeded generator. Fibers rather than OS threads: a
// block of 256 runs in any order one likes, repeatably, on one core, and a barrier that not all
// threads reach is seen at once instead of hanging.
//
// Not shown by this: speed, anything of the memory system (banks, caches, coalescing), blocks that
// truly run at the same time, and rounding beyond IEEE float, which both sides keep to.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
// One copy, as blocks run one after another; in a section of its own, so that its bounds are known.
#define __shared__ static __attribute__((section("cuda_shared")))

struct uint3 {
    unsigned x, y, z;
};

struct dim3 {
    unsigned x, y, z;
};

struct float2 {
    float x, y;
};

struct __align__(16) float4 {
    float x, y, z, w;
};

struct __align__(16) uint4 {
    unsigned x, y, z, w;
};

inline float4 make_float4(float x, float y, float z, float w) {
    return float4{x, y, z, w};
}

extern uint3 threadIdx;
extern uint3 blockIdx;
extern dim3 blockDim;
extern dim3 gridDim;

namespace cuda_on_cpu {

void block_barrier(int line);
void warp_barrier(int line);
void fence();
// Gives `in` to the warp and takes what the lane `from` gave; all 32 lanes must come.
void exchange(unsigned mask, const void* in, void* out, size_t size, int from, int line);
int lane();
unsigned atomic_inc(unsigned* address, unsigned limit);

template <typename T>
T shuffle(unsigned mask, T value, int from, int line) {
    T result;
    exchange(mask, &value, &result, sizeof(T), from, line);
    return result;
}

}  // namespace cuda_on_cpu

#define __syncthreads() cuda_on_cpu::block_barrier(__LINE__)
#define __syncwarp() cuda_on_cpu::warp_barrier(__LINE__)
#define __threadfence() cuda_on_cpu::fence()
#define __shfl_sync(mask, value, from) cuda_on_cpu::shuffle(mask, value, (from) & 31, __LINE__)
#define __shfl_xor_sync(mask, value, other) \
    cuda_on_cpu::shuffle(mask, value, cuda_on_cpu::lane() ^ (other), __LINE__)
#define atomicInc(address, limit) cuda_on_cpu::atomic_inc(address, limit)

template <typename T>
inline T __ldg(const T* address) {
    return *address;
}

inline unsigned __float_as_uint(float number) {
    unsigned bits;
    memcpy(&bits, &number, sizeof(bits));
    return bits;
}

inline float __uint_as_float(unsigned bits) {
    float number;
    memcpy(&number, &bits, sizeof(number));
    return number;
}

inline int min(int a, int b) {
    return a < b ? a : b;
}
