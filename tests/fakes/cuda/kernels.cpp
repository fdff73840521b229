// The kernel source under test, compiled as it is, and its kernels by name.
// -DKERNEL_SOURCE="..." names the file, -DKERNEL_NAMES=X(first)X(second) its kernels.
#include KERNEL_SOURCE

#include <utility>

#include "fibers.h"

namespace {

template <typename... Parameters, size_t... Number>
std::function<void()> bound(void (*kernel)(Parameters...), void** at,
                            std::index_sequence<Number...>) {
    return [kernel, at]() { kernel(*static_cast<Parameters*>(at[Number])...); };
}

template <typename... Parameters>
cuda_on_cpu::Kernel described(const char* name, void (*kernel)(Parameters...)) {
    return {name, {sizeof(Parameters)...}, [kernel](void** at) {
        return bound(kernel, at, std::index_sequence_for<Parameters...>());
    }};
}

}  // namespace

const std::vector<cuda_on_cpu::Kernel>& cuda_on_cpu::kernels() {
#define X(name) described(#name, name),
    static const std::vector<Kernel> all = {KERNEL_NAMES};
#undef X
    return all;
}
