// Runs kernels that another process asks for: requests on stdin, what became of them on stdout.
//
// A request, all numbers 32-bit little-endian: length and text of the kernel's name; grid x, y;
// block x; seed; number of parameters; each as kind (0 value, 1 memory), offset, length, bytes. A
// parameter that is memory is a fresh allocation of exactly that length, given to the kernel from
// `offset` on. The answer: length and text of what went wrong (0 if nothing did), then each
// memory's content. After something went wrong the worker ends.
#include <cstdio>
#include <cstdlib>

#include "fibers.h"
#include "memory.h"

namespace {

bool get(void* into, size_t size) {
    return fread(into, 1, size, stdin) == size;
}

uint32_t number() {
    uint32_t value = 0;
    if (!get(&value, sizeof(value))) {
        exit(0);  // no more requests
    }
    return value;
}

void put(const void* from, size_t size) {
    fwrite(from, 1, size, stdout);
}

struct Given {
    bool memory;
    uint32_t length;
    char* content;
    void* value;  // what the kernel gets: the content itself, or a pointer into it
};

void answer(const std::string& problem, const std::vector<Given>& parameters) {
    const uint32_t length = problem.size();
    put(&length, sizeof(length));
    put(problem.data(), length);
    for (const Given& parameter : parameters) {
        if (parameter.memory && problem.empty()) {
            put(parameter.content, parameter.length);
        }
    }
    fflush(stdout);
}

void serve() {
    std::string name(number(), ' ');
    get(&name[0], name.size());
    dim3 grid = {number(), 0, 1};
    grid.y = number();
    const dim3 block = {number(), 1, 1};
    const uint32_t seed = number();
    std::vector<Given> parameters(number());
    for (Given& parameter : parameters) {
        parameter.memory = number() == 1;
        const uint32_t offset = number();
        parameter.length = number();
        void* allocated = nullptr;
        if (posix_memalign(&allocated, 256, parameter.length) != 0) {
            exit(1);
        }
        parameter.content = static_cast<char*>(allocated);
        get(parameter.content, parameter.length);
        parameter.value = parameter.content + offset;
    }
    std::vector<void*> places;
    cuda_on_cpu::forget_memory();
    for (Given& parameter : parameters) {
        places.push_back(parameter.memory ? static_cast<void*>(&parameter.value)
                                          : static_cast<void*>(parameter.content));
        if (parameter.memory) {
            cuda_on_cpu::watch_memory(parameter.content, parameter.length);
        }
    }
    std::string problem = "no kernel of that name: " + name;
    for (const cuda_on_cpu::Kernel& kernel : cuda_on_cpu::kernels()) {
        if (kernel.name == name) {
            problem = kernel.parameters.size() != places.size() ? "wrong number of parameters"
                : cuda_on_cpu::run(grid, block, seed, kernel.bind(places.data()));
        }
    }
    answer(problem, parameters);
    if (!problem.empty()) {
        exit(1);
    }
    for (Given& parameter : parameters) {
        free(parameter.content);
    }
}

}  // namespace

int main() {
    for (;;) {
        serve();
    }
}
