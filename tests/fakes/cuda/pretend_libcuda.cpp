// A pretend libcuda.so.1: one device, a Jetson Nano by its numbers, whose kernels run on the CPU.
//
// Strict where a driver is, and where a rover would fail later than the mistake:
//   device memory cannot be touched by the host, only by kernels and copies (it is protected), and
//   every copy and fill must lie within one allocation;
//   a module must be a cubin for sm_53, and a launch must bring exactly the bytes of parameters
//   that the cubin says its kernel takes, each of the size that the source says, pointers into
//   device memory; blocks must be no larger than the kernel was compiled for;
//   what lies between two events can be asked for once both were recorded and waited for;
//   everything happens in the thread that made the context, and what was made is given back.
// The GPU is lost if the environment variable PRETEND_GPU_LOST names a file that is there, after as
// many more waits for a stream as it says: the next one fails with CUDA_ERROR_LAUNCH_FAILED, and
// so does everything that has to do with a context from then on, whatever the thread.
// A call that breaks a rule fails with CUDA_ERROR_INVALID_VALUE and says why on stderr. Functions
// that the project does not use do not exist: a call to one ends the process.
//
// Compiled against NVIDIA's own cuda.h, so every signature is the real one.
#include <cuda.h>
#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <thread>

#include "cubin.h"
#include "fibers.h"

struct CUctx_st {
    std::thread::id thread;
};

struct CUfunc_st {
    cubin::Kernel compiled;
    const cuda_on_cpu::Kernel* source;
};

struct CUmod_st {
    std::map<std::string, CUfunc_st> functions;
};

struct CUstream_st {};

struct CUevent_st {
    size_t place = 0;  // among all that were recorded, from 1 on
    std::chrono::steady_clock::time_point moment;
};

namespace {

const size_t PAGE = 4096;
std::map<CUdeviceptr, size_t> allocations;
std::vector<CUcontext> stack;
size_t contexts = 0;
size_t events = 0;
size_t recorded = 0;  // events, so far
size_t waited_for = 0;  // of these, the host knows to be over
bool lost = false;

#define UNLESS_LOST                      \
    if (lost) {                          \
        return CUDA_ERROR_LAUNCH_FAILED; \
    }

const size_t MEMORY = size_t(4) << 30;
const std::map<int, int> ATTRIBUTES = {
    {CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 1},
    {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 5},
    {CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, 3},
    {CU_DEVICE_ATTRIBUTE_CLOCK_RATE, 921600},
    {CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE, 1600000},
    {CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH, 64},
    {CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, 262144},
};

CUresult refuse(const std::string& why) {
    fprintf(stderr, "pretend driver: %s\n", why.c_str());
    return CUDA_ERROR_INVALID_VALUE;
}

std::string text(size_t number) {
    return std::to_string(number);
}

size_t whole_pages(size_t bytes) {
    return (bytes + PAGE - 1) / PAGE * PAGE;
}

// Whether this wait for a stream is the one that finds the GPU lost.
bool lost_by_now() {
    static const char* name = getenv("PRETEND_GPU_LOST");
    static size_t waits = 0;
    size_t good = 0;
    return name && std::ifstream(name) >> good && waits++ >= good;
}

// The device's turn: its memory can be read and written while one of these lives.
struct Device {
    Device() { protect(PROT_READ | PROT_WRITE); }
    ~Device() { protect(PROT_NONE); }
    static void protect(int how) {
        for (const auto& allocation : allocations) {
            mprotect(reinterpret_cast<void*>(allocation.first), whole_pages(allocation.second),
                     how);
        }
    }
};

std::string wrong_thread() {
    if (stack.empty()) {
        return "no context is current";
    }
    return stack.back()->thread == std::this_thread::get_id()
        ? "" : "called from another thread than the one that made the context";
}

// Why `bytes` bytes at a device address cannot be used, or "".
std::string outside(CUdeviceptr address, size_t bytes) {
    const std::string problem = wrong_thread();
    if (!problem.empty()) {
        return problem;
    }
    auto after = allocations.upper_bound(address);
    if (after == allocations.begin()) {
        return "not a device address";
    }
    --after;
    const size_t room = after->second - (address - after->first);
    if (address - after->first >= after->second) {
        return "not a device address";
    }
    return bytes <= room ? "" : text(bytes) + " bytes where the allocation has " + text(room);
}

CUresult copy(void* to, const void* from, size_t bytes, CUdeviceptr device) {
    const std::string problem = outside(device, bytes);
    if (!problem.empty()) {
        return refuse("copy: " + problem);
    }
    Device turn;
    memcpy(to, from, bytes);
    return CUDA_SUCCESS;
}

template <typename Element>
CUresult fill(CUdeviceptr address, Element value, size_t count) {
    const std::string problem = outside(address, count * sizeof(Element));
    if (!problem.empty()) {
        return refuse("fill: " + problem);
    }
    Device turn;
    for (size_t i = 0; i < count; ++i) {
        reinterpret_cast<Element*>(address)[i] = value;
    }
    return CUDA_SUCCESS;
}

// Why a launch with these parameters cannot be, or "".
std::string wrong_launch(const CUfunc_st& function, const char* buffer, size_t bytes,
                         unsigned threads) {
    const cubin::Kernel& compiled = function.compiled;
    const std::vector<cuda_on_cpu::Parameter>& source = function.source->parameters;
    if (bytes != compiled.bytes) {
        return text(bytes) + " bytes of parameters, the cubin says " + text(compiled.bytes);
    }
    if (compiled.sizes.size() != source.size()) {
        return "the cubin is of another source";
    }
    if (threads > compiled.most_threads) {
        return text(threads) + " threads, compiled for " + text(compiled.most_threads);
    }
    for (size_t i = 0; i < source.size(); ++i) {
        if (compiled.sizes[i] != source[i].bytes) {
            return "the cubin is of another source";
        }
        if (source[i].pointer) {
            CUdeviceptr address;
            memcpy(&address, buffer + compiled.offsets[i], sizeof(address));
            const std::string problem = outside(address, 1);
            if (!problem.empty()) {
                return "parameter " + text(i) + ": " + problem;
            }
        }
    }
    return wrong_thread();
}

}  // namespace

extern "C" {

CUresult cuInit(unsigned) {
    return CUDA_SUCCESS;
}

CUresult cuDriverGetVersion(int* version) {
    *version = 10020;
    return CUDA_SUCCESS;
}

CUresult cuGetErrorString(CUresult error, const char** said) {
    *said = error == CUDA_ERROR_INVALID_VALUE ? "the pretend driver refuses"
        : error == CUDA_ERROR_LAUNCH_FAILED ? "unspecified launch failure" : "error";
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetCount(int* count) {
    *count = 1;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGet(CUdevice* device, int number) {
    *device = number;
    return number == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult cuDeviceGetName(char* name, int length, CUdevice) {
    snprintf(name, length, "pretended Tegra X1");
    return CUDA_SUCCESS;
}

CUresult cuDeviceComputeCapability(int* major, int* minor, CUdevice) {
    *major = 5;
    *minor = 3;
    return CUDA_SUCCESS;
}

CUresult cuDeviceGetAttribute(int* value, CUdevice_attribute which, CUdevice) {
    const auto found = ATTRIBUTES.find(which);
    if (found == ATTRIBUTES.end()) {
        return refuse("an attribute it does not know");
    }
    *value = found->second;
    return CUDA_SUCCESS;
}

CUresult cuDeviceTotalMem_v2(size_t* bytes, CUdevice) {
    *bytes = MEMORY;
    return CUDA_SUCCESS;
}

CUresult cuCtxCreate_v2(CUcontext* context, unsigned, CUdevice) {
    UNLESS_LOST
    *context = new CUctx_st{std::this_thread::get_id()};
    stack.push_back(*context);
    ++contexts;
    return CUDA_SUCCESS;
}

CUresult cuCtxDetach(CUcontext context) {
    UNLESS_LOST
    if (!allocations.empty()) {
        return refuse(text(allocations.size()) + " allocations were not freed");
    }
    delete context;
    --contexts;
    return CUDA_SUCCESS;
}

CUresult cuCtxPushCurrent_v2(CUcontext context) {
    UNLESS_LOST
    stack.push_back(context);
    return CUDA_SUCCESS;
}

CUresult cuCtxPopCurrent_v2(CUcontext* context) {
    UNLESS_LOST
    if (stack.empty()) {
        return CUDA_ERROR_INVALID_CONTEXT;
    }
    *context = stack.back();
    stack.pop_back();
    return CUDA_SUCCESS;
}

CUresult cuCtxGetDevice(CUdevice* device) {
    UNLESS_LOST
    *device = 0;
    return stack.empty() ? CUDA_ERROR_INVALID_CONTEXT : CUDA_SUCCESS;
}

CUresult cuCtxSynchronize() {
    UNLESS_LOST
    waited_for = recorded;
    return CUDA_SUCCESS;
}

CUresult cuStreamCreate(CUstream* stream, unsigned) {
    UNLESS_LOST
    *stream = new CUstream_st;
    return CUDA_SUCCESS;
}

CUresult cuStreamDestroy_v2(CUstream stream) {
    UNLESS_LOST
    delete stream;
    return CUDA_SUCCESS;
}

CUresult cuStreamSynchronize(CUstream) {
    lost = lost || lost_by_now();
    UNLESS_LOST
    waited_for = recorded;
    return CUDA_SUCCESS;
}

CUresult cuEventCreate(CUevent* event, unsigned) {
    UNLESS_LOST
    const std::string problem = wrong_thread();
    if (!problem.empty()) {
        return refuse("event: " + problem);
    }
    *event = new CUevent_st;
    ++events;
    return CUDA_SUCCESS;
}

CUresult cuEventDestroy_v2(CUevent event) {
    UNLESS_LOST
    delete event;
    --events;
    return CUDA_SUCCESS;
}

CUresult cuEventRecord(CUevent event, CUstream) {
    UNLESS_LOST
    event->place = ++recorded;
    event->moment = std::chrono::steady_clock::now();
    return CUDA_SUCCESS;
}

CUresult cuEventSynchronize(CUevent event) {
    UNLESS_LOST
    if (event->place == 0) {
        return refuse("event: waited for and never recorded");
    }
    waited_for = std::max(waited_for, event->place);
    return CUDA_SUCCESS;
}

CUresult cuEventElapsedTime(float* milliseconds, CUevent start, CUevent end) {
    UNLESS_LOST
    if (start->place == 0 || end->place < start->place) {
        return refuse("event: the time between two that were not recorded one after the other");
    }
    if (end->place > waited_for) {
        refuse("event: the time to one that nobody waited for");
        return CUDA_ERROR_NOT_READY;
    }
    *milliseconds =
        std::chrono::duration<float, std::milli>(end->moment - start->moment).count();
    return CUDA_SUCCESS;
}

CUresult cuMemGetInfo_v2(size_t* unused, size_t* all) {
    UNLESS_LOST
    *all = *unused = MEMORY;
    for (const auto& allocation : allocations) {
        *unused -= allocation.second;
    }
    const std::string problem = wrong_thread();
    return problem.empty() ? CUDA_SUCCESS : refuse("memory: " + problem);
}

CUresult cuMemAlloc_v2(CUdeviceptr* address, size_t bytes) {
    UNLESS_LOST
    const std::string problem = wrong_thread();
    if (!problem.empty() || bytes == 0) {
        return refuse("allocation: " + (problem.empty() ? "of nothing" : problem));
    }
    // A page in front and one behind belong to nobody.
    char* pages = static_cast<char*>(mmap(nullptr, whole_pages(bytes) + 2 * PAGE, PROT_NONE,
                                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    if (pages == MAP_FAILED) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *address = reinterpret_cast<CUdeviceptr>(pages + PAGE);
    allocations[*address] = bytes;
    Device turn;
    memset(reinterpret_cast<void*>(*address), 0xff, whole_pages(bytes));
    return CUDA_SUCCESS;
}

CUresult cuMemFree_v2(CUdeviceptr address) {
    UNLESS_LOST
    const std::string problem = wrong_thread();
    if (!problem.empty() || allocations.count(address) == 0) {
        return refuse("free: " + (problem.empty() ? "no such allocation" : problem));
    }
    munmap(reinterpret_cast<char*>(address) - PAGE, whole_pages(allocations[address]) + 2 * PAGE);
    allocations.erase(address);
    return CUDA_SUCCESS;
}

CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void* from, size_t bytes) {
    UNLESS_LOST
    return copy(reinterpret_cast<void*>(to), from, bytes, to);
}

CUresult cuMemcpyDtoH_v2(void* to, CUdeviceptr from, size_t bytes) {
    UNLESS_LOST
    return copy(to, reinterpret_cast<const void*>(from), bytes, from);
}

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream) {
    UNLESS_LOST
    const std::string problem = outside(to, bytes);
    if (!problem.empty()) {
        return refuse("copy: " + problem);
    }
    if (to < from + bytes && from < to + bytes) {
        return refuse("copy: onto itself");
    }
    return copy(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes, from);
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t bytes, CUstream) {
    return cuMemcpyHtoD_v2(to, from, bytes);
}

CUresult cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t bytes, CUstream) {
    return cuMemcpyDtoH_v2(to, from, bytes);
}

CUresult cuMemsetD8_v2(CUdeviceptr address, unsigned char value, size_t count) {
    UNLESS_LOST
    return fill(address, value, count);
}

CUresult cuMemsetD32_v2(CUdeviceptr address, unsigned value, size_t count) {
    UNLESS_LOST
    return fill(address, value, count);
}

CUresult cuModuleLoadDataEx(CUmodule* module, const void* image, unsigned, CUjit_option*, void**) {
    UNLESS_LOST
    std::unique_ptr<CUmod_st> made(new CUmod_st);
    std::map<std::string, cubin::Kernel> compiled;
    const std::string problem = cubin::read(image, 53, &compiled);
    if (!problem.empty()) {
        refuse("module: " + problem);
        return CUDA_ERROR_INVALID_IMAGE;
    }
    for (const auto& each : compiled) {
        made->functions[each.first] = CUfunc_st{each.second, nullptr};
    }
    *module = made.release();
    return CUDA_SUCCESS;
}

CUresult cuModuleUnload(CUmodule module) {
    UNLESS_LOST
    delete module;
    return CUDA_SUCCESS;
}

CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
    UNLESS_LOST
    const auto found = module->functions.find(name);
    if (found == module->functions.end()) {
        return CUDA_ERROR_NOT_FOUND;
    }
    for (const cuda_on_cpu::Kernel& kernel : cuda_on_cpu::kernels()) {
        if (kernel.name == name) {
            found->second.source = &kernel;
        }
    }
    *function = &found->second;
    return found->second.source ? CUDA_SUCCESS : refuse("the sources have no kernel " +
                                                        std::string(name));
}

// PyCUDA calls it ahead of cuLaunchKernel, which says the same again.
CUresult cuFuncSetBlockShape(CUfunction, int, int, int) {
    UNLESS_LOST
    return CUDA_SUCCESS;
}

CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                        unsigned block_x, unsigned block_y, unsigned block_z, unsigned,
                        CUstream, void** parameters, void** extra) {
    UNLESS_LOST
    const char* buffer = nullptr;
    size_t bytes = 0;
    for (; extra && *extra != CU_LAUNCH_PARAM_END; extra += 2) {
        if (*extra == CU_LAUNCH_PARAM_BUFFER_POINTER) {
            buffer = static_cast<const char*>(extra[1]);
        } else if (*extra == CU_LAUNCH_PARAM_BUFFER_SIZE) {
            bytes = *static_cast<size_t*>(extra[1]);
        }
    }
    if (parameters || !buffer) {
        return refuse("launch: parameters are expected in one buffer");
    }
    const std::string problem =
        wrong_launch(*function, buffer, bytes, block_x * block_y * block_z);
    if (!problem.empty()) {
        return refuse("launch of " + function->source->name + ": " + problem);
    }
    std::vector<char> held(buffer, buffer + bytes);
    std::vector<void*> places;
    for (size_t offset : function->compiled.offsets) {
        places.push_back(held.data() + offset);
    }
    Device turn;
    const std::string fault =
        cuda_on_cpu::run(dim3{grid_x, grid_y, grid_z}, dim3{block_x, block_y, block_z}, 1,
                         function->source->bind(places.data()));
    return fault.empty() ? CUDA_SUCCESS : refuse(fault);
}

}  // extern "C"

namespace {

// At the end of the process: what was made must have been given back.
struct Leftovers {
    ~Leftovers() {
        if (contexts || events || !allocations.empty()) {
            refuse(text(contexts) + " contexts, " + text(events) + " events and " +
                   text(allocations.size()) + " allocations were left behind");
        }
    }
} leftovers;

}  // namespace
