// Runs kernels on the CPU; see cuda_on_cpu.h for what they see, fibers.cpp for how.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "cuda_on_cpu.h"

namespace cuda_on_cpu {

// How far a thread has come: barriers of its block and of its warp that it has passed.
struct Moment {
    int thread;
    unsigned block_barriers;
    unsigned warp_barriers;
};

// Runs every block of a grid, in an order drawn from `seed`. Returns what went wrong, or "". After
// that nothing more can be run: fibers were left where they were.
std::string run(dim3 grid, dim3 block, unsigned seed, const std::function<void()>& kernel);

// From inside a kernel: stops it, and makes `run` return `what`. Never returns.
[[noreturn]] void fail(const std::string& what);

bool running();
Moment now();
int block_number();

// What a watcher is told beside the reads and writes themselves. The plain one does nothing.
struct Watcher {
    virtual ~Watcher() {}
    virtual void block_starts(int threads) = 0;
    virtual void fenced() = 0;
    virtual void ticket_taken(const void* address) = 0;
};
extern Watcher* watcher;

struct Parameter {
    size_t bytes;
    bool pointer;
};

// A kernel by name, and a call of it from the addresses of its parameters.
struct Kernel {
    std::string name;
    std::vector<Parameter> parameters;
    std::function<std::function<void()>(void**)> bind;
};

// Every kernel of every kernels.cpp linked in.
std::vector<Kernel>& kernels();

}  // namespace cuda_on_cpu

// The bounds of all __shared__ variables together, made by the linker.
extern "C" char __start_cuda_shared[];
extern "C" char __stop_cuda_shared[];
