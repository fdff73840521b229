// What a compiled kernel says of itself: its parameters and its largest block, read from a cubin.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

namespace cubin {

struct Kernel {
    std::vector<size_t> offsets;  // of the parameters in the buffer they are passed in
    std::vector<size_t> sizes;
    size_t bytes = 0;             // of that buffer
    unsigned most_threads = 0;
};

// Every kernel of a cubin in memory. Returns why it cannot be used on sm_`architecture`, or "".
std::string read(const void* image, unsigned architecture, std::map<std::string, Kernel>* kernels);

}  // namespace cubin
