// Finds races: two threads at one byte, one of them writing, and nothing that puts one before the
// other. Whatever order the fibers ran in, so a lucky order hides nothing.
//
// The kernel is compiled with -fsanitize=thread, which makes the compiler call a function ahead of
// every read and write; those functions are here instead of in the compiler's own library, because
// only here is it known what orders CUDA threads:
//   in a block  a __syncthreads between the two; in a warp also a __syncwarp (a shuffle does not)
//   across blocks  the writer fences, passes a barrier, a thread of its block fences and takes a
//               ticket (atomicInc); later a thread of the reader's block takes the same ticket and
//               fences, and the reader passes a barrier after that
// Not shown: whether the hardware keeps its promises.
#include <map>
#include <set>
#include <sstream>
#include <vector>

#include "fibers.h"
#include "memory.h"

namespace cuda_on_cpu {

namespace {

const int LANES = 32;

struct Access {
    int block = -1;
    Moment moment;
};

struct Byte {
    Access writer;
    Access reader;
    Access other_reader;  // one of another warp than `reader`'s, if there is one
};

struct Region {
    const char* start;
    const char* end;
    bool shared;
    std::vector<Byte> bytes;
};

struct Thread {
    bool wrote = false;
    bool fenced = false;  // after its last write
    Moment last_write;
    Moment last_fence;
};

struct Block {
    std::set<int> seen;  // the blocks whose writes this one may read
    bool acquired = false;
    Moment acquired_at;
    int took_ticket = -1;  // the thread that did and has not fenced since
};

// The first of two accesses of one block is before the second.
bool before(const Moment& first, const Moment& second) {
    return first.thread == second.thread || first.block_barriers < second.block_barriers ||
        (first.thread / LANES == second.thread / LANES &&
         first.warp_barriers < second.warp_barriers);
}

class Races : public Watcher {
  public:
    Races() { watcher = this; }

    void forget() {
        regions.clear();
        blocks.clear();
        tickets.clear();
        add(__start_cuda_shared, __stop_cuda_shared, true);
    }

    void add(const char* start, const char* end, bool shared) {
        regions.push_back(Region{start, end, shared, std::vector<Byte>(end - start)});
    }

    void block_starts(int count) override {
        threads.assign(count, Thread());
        regions[0].bytes.assign(regions[0].bytes.size(), Byte());
    }

    void fenced() override {
        Thread& thread = threads[now().thread];
        thread.fenced = true;
        thread.last_fence = now();
        Block& block = blocks[block_number()];
        if (block.took_ticket == now().thread) {
            block.acquired = true;
            block.acquired_at = now();
            block.took_ticket = -1;
        }
    }

    void ticket_taken(const void* address) override {
        const Moment moment = now();
        Block& block = blocks[block_number()];
        const Thread& taker = threads[moment.thread];
        bool published = taker.fenced;
        for (const Thread& thread : threads) {
            if (thread.wrote && !(thread.fenced && before(thread.last_write, taker.last_fence))) {
                published = false;
            }
        }
        std::set<int>& given = tickets[address];
        block.seen.insert(given.begin(), given.end());
        block.took_ticket = moment.thread;
        if (published) {
            given.insert(block.seen.begin(), block.seen.end());
            given.insert(block_number());
        }
    }

    void touch(const void* address, size_t size, bool writes) {
        const char* at = static_cast<const char*>(address);
        for (Region& region : regions) {
            if (at >= region.start && at < region.end) {
                for (size_t i = 0; i < size && at + i < region.end; ++i) {
                    check(region, region.bytes[at + i - region.start], at + i, writes);
                }
                return;
            }
        }
    }

  private:
    void check(const Region& region, Byte& byte, const char* at, bool writes) {
        const Access access = {block_number(), now()};
        refuse_unordered(region, byte.writer, access, at, "wrote", writes);
        if (writes) {
            refuse_unordered(region, byte.reader, access, at, "read", writes);
            refuse_unordered(region, byte.other_reader, access, at, "read", writes);
            byte.writer = access;
            byte.reader = byte.other_reader = Access();
            Thread& thread = threads[access.moment.thread];
            if (!region.shared) {
                thread.wrote = true;
                thread.fenced = false;
                thread.last_write = access.moment;
            }
        } else if (byte.reader.block == access.block &&
                   byte.reader.moment.thread / LANES != access.moment.thread / LANES) {
            byte.other_reader = access;
        } else {
            byte.reader = access;
        }
    }

    void refuse_unordered(const Region& region, const Access& old, const Access& access,
                          const char* at, const char* did, bool writes) {
        if (old.block < 0 || ordered(old, access)) {
            return;
        }
        std::ostringstream text;
        text << "race: thread " << access.moment.thread << (writes ? " writes " : " reads ")
             << (region.shared ? "shared" : "global") << " byte " << at - region.start << ", which "
             << "thread " << old.moment.thread << " of block " << old.block << " " << did
             << ", and nothing puts one before the other";
        fail(text.str());
    }

    bool ordered(const Access& old, const Access& access) {
        if (old.block == access.block) {
            return before(old.moment, access.moment);
        }
        const Block& block = blocks[access.block];
        return block.seen.count(old.block) && block.acquired &&
            before(block.acquired_at, access.moment);
    }

    std::vector<Region> regions;
    std::vector<Thread> threads;
    std::map<int, Block> blocks;
    std::map<const void*, std::set<int>> tickets;
};

Races races;

}  // namespace

void watch_memory(const void* start, size_t bytes) {
    const char* first = static_cast<const char*>(start);
    races.add(first, first + bytes, false);
}

void forget_memory() {
    races.forget();
}

}  // namespace cuda_on_cpu

namespace {

void touch(const void* address, size_t size, bool writes) {
    if (cuda_on_cpu::running()) {
        cuda_on_cpu::races.touch(address, size, writes);
    }
}

}  // namespace

#define HOOKS(size)                                                                        \
    extern "C" void __tsan_read##size(void* at) { touch(at, size, false); }                \
    extern "C" void __tsan_write##size(void* at) { touch(at, size, true); }                \
    extern "C" void __tsan_volatile_read##size(void* at) { touch(at, size, false); }       \
    extern "C" void __tsan_volatile_write##size(void* at) { touch(at, size, true); }       \
    extern "C" void __tsan_unaligned_read##size(void* at) { touch(at, size, false); }      \
    extern "C" void __tsan_unaligned_write##size(void* at) { touch(at, size, true); }

HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)

extern "C" void __tsan_init() {}
extern "C" void __tsan_func_entry(void*) {}
extern "C" void __tsan_func_exit() {}
extern "C" void __tsan_vptr_update(void**, void*) {}
extern "C" void __tsan_read_range(void* at, size_t size) { touch(at, size, false); }
extern "C" void __tsan_write_range(void* at, size_t size) { touch(at, size, true); }
