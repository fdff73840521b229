// CUDA's threads as fibers of one OS thread: order drawn by lot, barriers checked.
#include "fibers.h"

#include <ucontext.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <random>
#include <sstream>

uint3 threadIdx;
uint3 blockIdx;
dim3 blockDim;
dim3 gridDim;

namespace cuda_on_cpu {

Watcher* watcher = nullptr;

namespace {

const size_t STACK_BYTES = 64 * 1024;
const int LANES = 32;
const size_t MOST_EXCHANGED = 16;

enum State { READY, AT_BLOCK_BARRIER, AT_WARP_BARRIER, DONE };

// Where to go on. The compiler's own setjmp: swapcontext asks the operating system at every switch,
// and the C library's longjmp refuses to leave a stack.
typedef void* Place[5];

struct Fiber {
    Place place;
    bool started;
    std::unique_ptr<char[]> stack;
    State state;
    int line;
    unsigned block_barriers;
    unsigned warp_barriers;
    unsigned exchanges;
    // Two places: a lane can be one exchange ahead of the slowest of its warp, never two.
    char given[2][MOST_EXCHANGED];
};

std::vector<Fiber> fibers;
std::mt19937 generator;
Place scheduler;
int current = -1;
const std::function<void()>* body = nullptr;
std::string failure;

// `noipa`: the compiler must not conclude from what these functions do what has changed when they
// come back; other fibers have run in between.
__attribute__((noipa, noreturn)) void go_to(Place& place) {
    __builtin_longjmp(place, 1);
}

__attribute__((noipa)) void to_scheduler() {
    Fiber& fiber = fibers[current];
    if (!__builtin_setjmp(fiber.place)) {
        go_to(scheduler);
    }
}

// A fiber's whole life: one turn of the loop for each block.
void live() {
    for (;;) {
        (*body)();
        fibers[current].state = DONE;
        to_scheduler();
    }
}

__attribute__((noipa, noreturn)) void start(Fiber& fiber) {
    static ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = fiber.stack.get();
    context.uc_stack.ss_size = STACK_BYTES;
    context.uc_link = nullptr;
    makecontext(&context, live, 0);
    fiber.started = true;
    setcontext(&context);
    std::abort();
}

void wait(State state, int line) {
    fibers[current].state = state;
    fibers[current].line = line;
    to_scheduler();
}

__attribute__((noipa)) void resume(int number) {
    current = number;
    threadIdx.x = number % blockDim.x;
    threadIdx.y = number / blockDim.x % blockDim.y;
    threadIdx.z = number / (blockDim.x * blockDim.y);
    if (!__builtin_setjmp(scheduler)) {
        if (fibers[number].started) {
            go_to(fibers[number].place);
        }
        start(fibers[number]);
    }
}

std::string at_lines(int first, int end) {
    std::ostringstream text;
    for (int i = first; i < end && i < first + LANES; ++i) {
        const Fiber& fiber = fibers[i];
        text << (i > first ? ", " : "") << i << ": ";
        if (fiber.state == DONE) {
            text << "ended";
        } else {
            text << "line " << fiber.line;
        }
    }
    return text.str();
}

// Lets the waiting ones of [first, end) go on if all of them wait for the same; else says why not.
bool release(int first, int end, State state, std::string* problem) {
    for (int i = first; i < end; ++i) {
        if (fibers[i].state != state || fibers[i].line != fibers[first].line) {
            *problem = at_lines(first, end);
            return false;
        }
    }
    for (int i = first; i < end; ++i) {
        fibers[i].state = READY;
        ++(state == AT_BLOCK_BARRIER ? fibers[i].block_barriers : fibers[i].warp_barriers);
    }
    return true;
}

bool any(int first, int end, State state) {
    return std::any_of(fibers.begin() + first, fibers.begin() + end,
                       [state](const Fiber& fiber) { return fiber.state == state; });
}

// When no fiber can go on: opens the barriers that can be opened. False when all have ended.
bool open_barriers(int threads) {
    bool opened = false;
    std::string problem;
    for (int first = 0; first < threads; first += LANES) {
        const int end = std::min(first + LANES, threads);
        if (any(first, end, AT_WARP_BARRIER)) {
            if (!release(first, end, AT_WARP_BARRIER, &problem)) {
                failure = "a warp's barrier was not reached by all its lanes: " + problem;
                return false;
            }
            opened = true;
        }
    }
    if (!opened && any(0, threads, AT_BLOCK_BARRIER)) {
        if (!release(0, threads, AT_BLOCK_BARRIER, &problem)) {
            failure = "__syncthreads was not reached by all threads of the block: " + problem;
            return false;
        }
        opened = true;
    }
    return opened;
}

// Shared memory starts as anything; not-a-number shows up in any result that depends on it.
// Byte by byte and unwatched, as the address sanitizer keeps forbidden gaps between the variables.
__attribute__((no_sanitize("address"))) void spoil_shared_memory() {
    for (volatile char* at = __start_cuda_shared; at != __stop_cuda_shared; ++at) {
        *at = static_cast<char>(0xff);
    }
}

void run_block(int threads) {
    spoil_shared_memory();
    for (int i = 0; i < threads; ++i) {
        Fiber& fiber = fibers[i];
        fiber.state = READY;
        fiber.block_barriers = fiber.warp_barriers = fiber.exchanges = 0;
    }
    if (watcher) {
        watcher->block_starts(threads);
    }
    std::vector<int> order;
    do {
        order.clear();
        for (int i = 0; i < threads; ++i) {
            if (fibers[i].state == READY) {
                order.push_back(i);
            }
        }
        std::shuffle(order.begin(), order.end(), generator);
        for (int number : order) {
            resume(number);
            if (!failure.empty()) {
                return;
            }
        }
    } while (open_barriers(threads));
}

}  // namespace

std::vector<Kernel>& kernels() {
    static std::vector<Kernel> all;
    return all;
}

std::string run(dim3 grid, dim3 block, unsigned seed, const std::function<void()>& kernel) {
    generator.seed(seed);
    failure.clear();
    body = &kernel;
    gridDim = grid;
    blockDim = block;
    const int threads = block.x * block.y * block.z;
    while (static_cast<int>(fibers.size()) < threads) {
        fibers.emplace_back();
        fibers.back().started = false;
        fibers.back().stack.reset(new char[STACK_BYTES]);
    }
    std::vector<unsigned> order(grid.x * grid.y * grid.z);
    for (size_t i = 0; i < order.size(); ++i) {
        order[i] = i;
    }
    std::shuffle(order.begin(), order.end(), generator);
    for (unsigned number : order) {
        blockIdx.x = number % grid.x;
        blockIdx.y = number / grid.x % grid.y;
        blockIdx.z = number / (grid.x * grid.y);
        run_block(threads);
        if (!failure.empty()) {
            std::ostringstream text;
            text << failure << " (block " << blockIdx.x << "," << blockIdx.y << ")";
            failure = text.str();
            break;
        }
    }
    current = -1;
    body = nullptr;
    return failure;
}

void fail(const std::string& what) {
    failure = what;
    go_to(scheduler);
}

bool running() {
    return current >= 0;
}

Moment now() {
    return Moment{current, fibers[current].block_barriers, fibers[current].warp_barriers};
}

int block_number() {
    return blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
}

void block_barrier(int line) {
    wait(AT_BLOCK_BARRIER, line);
}

void warp_barrier(int line) {
    wait(AT_WARP_BARRIER, line);
}

void fence() {
    if (watcher) {
        watcher->fenced();
    }
}

int lane() {
    return current % LANES;
}

void exchange(unsigned mask, const void* in, void* out, size_t size, int from, int line) {
    if (mask != 0xffffffffu || size > MOST_EXCHANGED) {
        fail("a shuffle of part of a warp, or of more than 16 bytes, is not known here");
    }
    Fiber& fiber = fibers[current];
    const unsigned place = fiber.exchanges++ % 2;
    memcpy(fiber.given[place], in, size);
    const unsigned barriers = fiber.warp_barriers;
    wait(AT_WARP_BARRIER, line);
    fiber.warp_barriers = barriers;  // a shuffle moves a number; it does not order memory
    memcpy(out, fibers[current - current % LANES + from].given[place], size);
}

unsigned atomic_inc(unsigned* address, unsigned limit) {
    if (watcher) {
        watcher->ticket_taken(address);
    }
    const unsigned old = *address;
    *address = old >= limit ? 0 : old + 1;
    return old;
}

}  // namespace cuda_on_cpu
