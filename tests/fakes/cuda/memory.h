// Which memory is the device's: only the race watcher (races.cpp) keeps note of it.
#pragma once

#include <cstddef>

namespace cuda_on_cpu {

#ifdef WATCH_RACES
void watch_memory(const void* start, size_t bytes);
void forget_memory();
#else
inline void watch_memory(const void*, size_t) {}
inline void forget_memory() {}
#endif

}  // namespace cuda_on_cpu
