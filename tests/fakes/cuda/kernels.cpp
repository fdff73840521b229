// The kernel source under test, compiled as it is, and its kernels by name.
// -DKERNEL_SOURCE="..." names the file, -DKERNEL_NAMES=X(first)X(second) its kernels.
#include KERNEL_SOURCE

#include <type_traits>
#include <utility>

#include "fibers.h"

namespace {

template <typename... Parameters, size_t... Number>
std::function<void()> bound(void (*kernel)(Parameters...), void** at,
                            std::index_sequence<Number...>) {
    return [kernel, at]() { kernel(*static_cast<Parameters*>(at[Number])...); };
}

template <typename... Parameters>
bool known(const char* name, void (*kernel)(Parameters...)) {
    cuda_on_cpu::kernels().push_back(
        {name, {{sizeof(Parameters), std::is_pointer<Parameters>::value}...}, [kernel](void** at) {
            return bound(kernel, at, std::index_sequence_for<Parameters...>());
        }});
    return true;
}

#define X(name) known(#name, name),
const bool all_known[] = {KERNEL_NAMES};
#undef X

}  // namespace
