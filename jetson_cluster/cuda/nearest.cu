// The few nearest centroids of each embedding, straight from the network's output buffer.
//
// In:  embeddings float32 [rows, dimension], raw; centroids [k, stride] in half or float, where
//      stride is dimension rounded up to TILE_DEPTH and the rest of each row is zero.
// Out: for each row its `neighbours` (1 to 4, at most k) nearest centroids, nearest first, ties to
//      the lower index: indices int32 and Euclidean distances float32, [rows, neighbours] both.
//
// Each embedding is scaled to length 1 here, as codebook.normalise does; a zero row stays zero, and
// a row that is not finite gets the lowest indices and distances that are no numbers.
//
// How distances are had. |x|^2 - 2xc + |c|^2 needs one multiplication per number, but loses every
// digit that the terms share and can come out negative. The sum of (x - c)^2 does neither, and
// needs twice the arithmetic. So every distance that leaves here is measured from differences:
//   nearest_few_*   for few rows (up to 16, grids.py says why): all centroids are measured by
//                   differences. Reading them takes longer than the arithmetic then.
//   nearest_many_*  for more rows: a tiled matrix product proposes CANDIDATES for each row, and
//                   those are measured. The product's rounding has a proven bound (`doubt`, see
//                   grids.py); where it could have hidden a nearer centroid from the candidates
//                   (many centroids almost equally near), the row is measured against all.
// One warp measures in one order of additions in both, so a row's answer does not depend on how
// many rows came with it, nor on how the centroids were split over blocks.
//
// One launch does everything: where blocks share the centroids of a row between them, each leaves
// its best in `partial` and the last one to finish merges. `tickets` must be zero before the first
// launch and is zero again after each; launches that share it must follow one another in a stream.
//
// C++14, CUDA 10.2 and newer, compute capability 5.3 and newer; blocks of 256 threads, no dynamic
// shared memory.

#include <cuda_fp16.h>

namespace {

typedef unsigned long long Ranked;  // (number in sortable form, index): the smaller is the nearer

const int WARP = 32;
const int WARPS = 8;
const int NEIGHBOURS = 4;
const int GROUP = 4;          // centroids a warp measures at once: four loads in flight per lane
const int CANDIDATES = 8;     // four more than can be asked for: near-ties rarely reach beyond
const int EACH = 8;           // numbers a lane takes at once: 16 bytes of half
const int TILE_ROWS = 64;
const int TILE_CENTROIDS = 128;
const int TILE_DEPTH = 16;
const int ROWS_PITCH = TILE_ROWS + 4;            // keeps 16-byte alignment and spreads the banks
const int CENTROIDS_PITCH = TILE_CENTROIDS + 4;
const int STAGED = TILE_CENTROIDS / 2;           // columns staged at once: half a tile fits
const int STAGED_PITCH = STAGED + 4;
const int SCANNERS = WARPS * WARP / TILE_ROWS;   // threads that look through one row's products
const unsigned ALL = 0xffffffffu;
const Ranked NONE = ~0ull;
const float SMALLEST = 1.17549435e-38f;
// Squares of float overflow from 1e19 and vanish below 1e-22: rows beyond these are scaled first.
const float LEAST_SQUARES = 1e-30f;
const float MOST_SQUARES = 1e30f;

struct Work {
    const float* embeddings;
    int rows;
    int k;
    int dimension;
    int slice;        // centroids each block looks at; blockIdx.y says which
    int neighbours;
    int* index;
    float* distance;
    Ranked* partial;  // [rows, gridDim.y, NEIGHBOURS], unused where gridDim.y is 1
    unsigned* tickets;
};

struct Point {
    const float* numbers;
    int dimension;
    bool aligned;     // the row can be read 16 bytes at a time
    float scale;      // 1, or the largest magnitude of an extreme row
    float length;     // after division by scale; never 0
};

__device__ __forceinline__ Ranked ranked(float number, int index) {
    unsigned bits = number == number ? __float_as_uint(number) : 0x7fffffffu;
    bits ^= (bits >> 31) ? 0xffffffffu : 0x80000000u;
    return (static_cast<Ranked>(bits) << 32) | static_cast<unsigned>(index);
}

__device__ __forceinline__ float number_of(Ranked key) {
    const unsigned bits = static_cast<unsigned>(key >> 32);
    return __uint_as_float(bits ^ ((bits >> 31) ? 0x80000000u : 0xffffffffu));
}

__device__ __forceinline__ int index_of(Ranked key) {
    return static_cast<int>(static_cast<unsigned>(key));
}

// Puts `key` into its place in a sorted list, the last falls out. Unrolled, the list is registers.
template <int N>
__device__ __forceinline__ void insert(Ranked (&list)[N], Ranked key) {
    if (key < list[N - 1]) {
        list[N - 1] = key;
#pragma unroll
        for (int i = N - 1; i > 0; --i) {
            if (list[i] < list[i - 1]) {
                const Ranked nearer = list[i];
                list[i] = list[i - 1];
                list[i - 1] = nearer;
            }
        }
    }
}

// The three reductions give every lane the same bits, whatever the lane.
__device__ __forceinline__ float warp_sum(float number) {
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2) {
        number += __shfl_xor_sync(ALL, number, step);
    }
    return number;
}

__device__ __forceinline__ float warp_largest(float number) {
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2) {
        number = fmaxf(number, __shfl_xor_sync(ALL, number, step));
    }
    return number;
}

__device__ __forceinline__ Ranked warp_least(Ranked key) {
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2) {
        const Ranked other = __shfl_xor_sync(ALL, key, step);
        key = other < key ? other : key;
    }
    return key;
}

__device__ __forceinline__ void load_4(const float* row, int at, int dimension, bool aligned,
                                       float* numbers) {
    if (aligned) {  // then dimension is a multiple of 4: all four are inside, or none
        const float4 loaded = at < dimension ? __ldg(reinterpret_cast<const float4*>(row + at))
                                             : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        numbers[0] = loaded.x;
        numbers[1] = loaded.y;
        numbers[2] = loaded.z;
        numbers[3] = loaded.w;
    } else {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            numbers[i] = at + i < dimension ? __ldg(row + at + i) : 0.0f;
        }
    }
}

__device__ __forceinline__ void load_8(const __half* centroid, float* numbers) {
    const uint4 loaded = *reinterpret_cast<const uint4*>(centroid);
    const unsigned pairs[4] = {loaded.x, loaded.y, loaded.z, loaded.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const float2 pair = __half22float2(*reinterpret_cast<const __half2*>(&pairs[i]));
        numbers[2 * i] = pair.x;
        numbers[2 * i + 1] = pair.y;
    }
}

__device__ __forceinline__ void load_8(const float* centroid, float* numbers) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const float4 loaded = *reinterpret_cast<const float4*>(centroid + 4 * i);
        numbers[4 * i] = loaded.x;
        numbers[4 * i + 1] = loaded.y;
        numbers[4 * i + 2] = loaded.z;
        numbers[4 * i + 3] = loaded.w;
    }
}

__device__ __forceinline__ int stride_of(int dimension) {
    return (dimension + TILE_DEPTH - 1) / TILE_DEPTH * TILE_DEPTH;
}

__device__ __forceinline__ bool can_be_read_by_four(const float* row, int dimension) {
    return dimension % 4 == 0 && (reinterpret_cast<size_t>(row) & 15) == 0;
}

// The numbers [at, at + EACH) of a point, before division by its length.
__device__ __forceinline__ void load_scaled(const Point& point, int at, float* numbers) {
    load_4(point.numbers, at, point.dimension, point.aligned, numbers);
    load_4(point.numbers, at + 4, point.dimension, point.aligned, numbers + 4);
    if (point.scale != 1.0f) {
#pragma unroll
        for (int i = 0; i < EACH; ++i) {
            numbers[i] /= point.scale;
        }
    }
}

__device__ __forceinline__ float sum_of_squares(const Point& point, int lane) {
    float sum = 0.0f;
    for (int at = lane * EACH; at < point.dimension; at += WARP * EACH) {
        float numbers[EACH];
        load_scaled(point, at, numbers);
#pragma unroll
        for (int i = 0; i < EACH; ++i) {
            sum = fmaf(numbers[i], numbers[i], sum);
        }
    }
    return warp_sum(sum);
}

// One row and its length, by one warp.
__device__ Point open_point(const Work& work, int row, int lane) {
    Point point;
    point.numbers = work.embeddings + static_cast<size_t>(row) * work.dimension;
    point.dimension = work.dimension;
    point.aligned = can_be_read_by_four(point.numbers, work.dimension);
    point.scale = 1.0f;
    float sum = sum_of_squares(point, lane);
    if (!(sum > LEAST_SQUARES && sum < MOST_SQUARES)) {
        float largest = 0.0f;
        for (int at = lane; at < point.dimension; at += WARP) {
            largest = fmaxf(largest, fabsf(__ldg(point.numbers + at)));
        }
        point.scale = fmaxf(warp_largest(largest), SMALLEST);
        sum = sum_of_squares(point, lane);
    }
    point.length = fmaxf(sqrtf(sum), SMALLEST);
    return point;
}

// Squared distances of one point to GROUP centroids, from differences, by one warp.
template <typename Stored>
__device__ __forceinline__ void measure(const Point& point, const Stored* centroids,
                                        const int (&which)[GROUP], int lane,
                                        float (&squared)[GROUP]) {
    const size_t stride = stride_of(point.dimension);
#pragma unroll
    for (int g = 0; g < GROUP; ++g) {
        squared[g] = 0.0f;
    }
    for (int at = lane * EACH; at < point.dimension; at += WARP * EACH) {
        float numbers[EACH];
        load_scaled(point, at, numbers);
#pragma unroll
        for (int i = 0; i < EACH; ++i) {
            numbers[i] /= point.length;
        }
#pragma unroll
        for (int g = 0; g < GROUP; ++g) {
            float centroid[EACH];
            load_8(centroids + which[g] * stride + at, centroid);
#pragma unroll
            for (int i = 0; i < EACH; ++i) {
                const float difference = numbers[i] - centroid[i];
                squared[g] = fmaf(difference, difference, squared[g]);
            }
        }
    }
#pragma unroll
    for (int g = 0; g < GROUP; ++g) {
        squared[g] = warp_sum(squared[g]);
    }
}

// Lane i < count gets the i-th least of all lanes' sorted lists; the lists are used up.
template <int N>
__device__ __forceinline__ Ranked warp_take(Ranked (&list)[N], int count, int lane) {
    Ranked mine = NONE;
    for (int place = 0; place < count; ++place) {
        const Ranked least = warp_least(list[0]);
        mine = lane == place ? least : mine;
        if (list[0] == least) {
#pragma unroll
            for (int i = 0; i < N - 1; ++i) {
                list[i] = list[i + 1];
            }
            list[N - 1] = NONE;
        }
    }
    return mine;
}

// Writes a row's answer, of which lane i holds the i-th.
__device__ __forceinline__ void write_answer(const Work& work, int row, Ranked mine, int lane) {
    if (lane < work.neighbours) {
        const size_t place = static_cast<size_t>(row) * work.neighbours + lane;
        work.index[place] = index_of(mine);
        work.distance[place] = sqrtf(number_of(mine));
    }
}

__device__ __forceinline__ size_t partial_of(int row, int split) {
    return (static_cast<size_t>(row) * gridDim.y + split) * NEIGHBOURS;
}

// Leaves what this block found for a row where the last block to finish will look for it.
__device__ __forceinline__ void leave(const Work& work, int row, Ranked mine, int lane) {
    if (lane < NEIGHBOURS) {
        work.partial[partial_of(row, blockIdx.y) + lane] = mine;
        __threadfence();
    }
}

// By one thread, after a barrier that follows every `leave` of its block: true in exactly one of
// the gridDim.y blocks of a ticket, the last to come; the ticket is 0 again then. The fence before
// makes what the block left visible ahead of the ticket, the one after keeps later reads behind it.
__device__ __forceinline__ bool is_last(unsigned* ticket) {
    __threadfence();
    const bool last = atomicInc(ticket, gridDim.y - 1) == gridDim.y - 1;
    __threadfence();
    return last;
}

// The answer for a row out of what every block left for it, by one warp.
__device__ void merge(const Work& work, int row, int lane) {
    const volatile Ranked* left = work.partial + partial_of(row, 0);
    const int count = gridDim.y * NEIGHBOURS;
    Ranked best[NEIGHBOURS];
#pragma unroll
    for (int i = 0; i < NEIGHBOURS; ++i) {
        best[i] = NONE;
    }
    for (int at = lane; at < count; at += WARP) {
        insert(best, left[at]);
    }
    write_answer(work, row, warp_take(best, NEIGHBOURS, lane), lane);
}

// Grid: (rows, splits). Blocks of one split come after one another, so what one row's block reads
// of the centroids is still in the cache for the next row's.
template <typename Stored>
__device__ __forceinline__ void few(const Work& work, const Stored* centroids,
                                    Ranked (&found)[WARPS * NEIGHBOURS]) {
    const int lane = threadIdx.x % WARP;
    const int warp = threadIdx.x / WARP;
    const int row = blockIdx.x;
    const int first = blockIdx.y * work.slice;
    const int end = min(first + work.slice, work.k);
    const Point point = open_point(work, row, lane);

    Ranked best[NEIGHBOURS];
#pragma unroll
    for (int i = 0; i < NEIGHBOURS; ++i) {
        best[i] = NONE;
    }
    for (int at = first + warp * GROUP; at < end; at += WARPS * GROUP) {
        int which[GROUP];
        float squared[GROUP];
#pragma unroll
        for (int g = 0; g < GROUP; ++g) {
            which[g] = min(at + g, end - 1);
        }
        measure(point, centroids, which, lane, squared);
#pragma unroll
        for (int g = 0; g < GROUP; ++g) {
            if (at + g < end) {
                insert(best, ranked(squared[g], at + g));
            }
        }
    }
    if (lane == 0) {
#pragma unroll
        for (int i = 0; i < NEIGHBOURS; ++i) {
            found[warp * NEIGHBOURS + i] = best[i];
        }
    }
    __syncthreads();
    if (warp != 0) {
        return;
    }
    Ranked one[1] = {found[lane]};
    const Ranked mine = warp_take(one, NEIGHBOURS, lane);
    if (gridDim.y == 1) {
        write_answer(work, row, mine, lane);
        return;
    }
    leave(work, row, mine, lane);
    __syncwarp();
    int last = 0;
    if (lane == 0) {
        last = is_last(work.tickets + row);
    }
    __syncwarp();
    if (__shfl_sync(ALL, last, 0)) {
        merge(work, row, lane);
    }
}

union Scratch {
    struct {
        float rows[TILE_DEPTH][ROWS_PITCH];
        float centroids[TILE_DEPTH][CENTROIDS_PITCH];
    } tile;
    float staged[TILE_ROWS][STAGED_PITCH];
    Ranked proposed[TILE_ROWS][SCANNERS * CANDIDATES];
};

struct Shared {
    Scratch scratch;
    float halves[TILE_CENTROIDS];  // of the tile's centroids
    int last;
};

// What one warp makes of a row's proposals: its nearest of this block's centroids, in lane order.
template <typename Stored>
__device__ Ranked settle(const Work& work, const Stored* centroids, int row, int first, int end,
                         Ranked proposed, float doubt, int lane) {
    const Point point = open_point(work, row, lane);
    Ranked one[1] = {proposed};
    const Ranked candidate = warp_take(one, CANDIDATES, lane);
    const Ranked wanted = __shfl_sync(ALL, candidate, work.neighbours - 1);
    const Ranked worst = __shfl_sync(ALL, candidate, CANDIDATES - 1);
    // All others are behind the worst candidate; each of the two may be out by `doubt`.
    const bool sure = worst == NONE ||
        (point.scale == 1.0f && number_of(worst) - number_of(wanted) > 2.0f * doubt);
    const int count = sure ? CANDIDATES : end - first;
    Ranked best[NEIGHBOURS];
#pragma unroll
    for (int i = 0; i < NEIGHBOURS; ++i) {
        best[i] = NONE;
    }
    for (int at = 0; at < count; at += GROUP) {
        int which[GROUP];
        bool real[GROUP];
        float squared[GROUP];
#pragma unroll
        for (int g = 0; g < GROUP; ++g) {
            const Ranked key = __shfl_sync(ALL, candidate, (at + g) % WARP);
            real[g] = sure ? key != NONE : at + g < count;
            which[g] = !real[g] ? first : sure ? index_of(key) : first + at + g;
        }
        measure(point, centroids, which, lane, squared);
#pragma unroll
        for (int g = 0; g < GROUP; ++g) {
            if (real[g]) {
                insert(best, ranked(squared[g], which[g]));
            }
        }
    }
    Ranked mine = NONE;
#pragma unroll
    for (int i = 0; i < NEIGHBOURS; ++i) {
        mine = lane == i ? best[i] : mine;
    }
    return mine;
}

// Grid: (tiles of TILE_ROWS rows, splits). A thread makes 4 x 8 of a tile's products.
template <typename Stored>
__device__ __forceinline__ void many(const Work& work, const Stored* centroids,
                                     const float* half_norms, float doubt, Shared& shared) {
    Scratch& scratch = shared.scratch;
    const int thread = threadIdx.x;
    const int lane = thread % WARP;
    const int warp = thread / WARP;
    const int across = thread % 16;
    const int down = thread / 16;
    const int first_row = blockIdx.x * TILE_ROWS;
    const int first = blockIdx.y * work.slice;
    const int end = min(first + work.slice, work.k);
    const int stride = stride_of(work.dimension);

    // As a loader and as a scanner, a thread belongs to one row, with three others.
    const int own_row = thread / SCANNERS;
    const int own_part = thread % SCANNERS;
    const bool row_exists = first_row + own_row < work.rows;
    const float* row = work.embeddings +
        static_cast<size_t>(row_exists ? first_row + own_row : 0) * work.dimension;
    const bool aligned = can_be_read_by_four(row, work.dimension);
    const int in_row = row_exists ? work.dimension : 0;
    const int own_centroid = thread / 2;
    const int own_half = thread % 2;
    float squares = 0.0f;
    float shrink = 0.0f;  // 1 / length of the row

    Ranked best[CANDIDATES];
#pragma unroll
    for (int i = 0; i < CANDIDATES; ++i) {
        best[i] = NONE;
    }
    for (int tile = first; tile < end; tile += TILE_CENTROIDS) {
        const bool centroid_exists = tile + own_centroid < end;
        const Stored* centroid = centroids +
            static_cast<size_t>(centroid_exists ? tile + own_centroid : first) * stride +
            own_half * EACH;
        float product[4][8];
#pragma unroll
        for (int i = 0; i < 4; ++i) {
#pragma unroll
            for (int j = 0; j < 8; ++j) {
                product[i][j] = 0.0f;
            }
        }
        float from_row[4];
        float from_centroid[EACH];
        load_4(row, own_part * 4, in_row, aligned, from_row);
        load_8(centroid, from_centroid);
        for (int depth = 0; depth < stride; depth += TILE_DEPTH) {
            __syncthreads();  // what was in shared memory has been used
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                scratch.tile.rows[own_part * 4 + i][own_row] = from_row[i];
                squares = fmaf(from_row[i], from_row[i], squares);
            }
#pragma unroll
            for (int i = 0; i < EACH; ++i) {
                scratch.tile.centroids[own_half * EACH + i][own_centroid] = from_centroid[i];
            }
            if (depth == 0 && own_half == 0) {
                shared.halves[own_centroid] =
                    centroid_exists ? half_norms[tile + own_centroid] : 0.0f;
            }
            __syncthreads();  // the tile is there
            if (depth + TILE_DEPTH < stride) {  // on its way while this tile is multiplied
                load_4(row, depth + TILE_DEPTH + own_part * 4, in_row, aligned, from_row);
                load_8(centroid + depth + TILE_DEPTH, from_centroid);
            }
#pragma unroll
            for (int d = 0; d < TILE_DEPTH; ++d) {
                const float4 a =
                    *reinterpret_cast<const float4*>(&scratch.tile.rows[d][down * 4]);
                const float4 b =
                    *reinterpret_cast<const float4*>(&scratch.tile.centroids[d][across * 4]);
                const float4 c = *reinterpret_cast<const float4*>(
                    &scratch.tile.centroids[d][STAGED + across * 4]);
                const float left[4] = {a.x, a.y, a.z, a.w};
                const float right[8] = {b.x, b.y, b.z, b.w, c.x, c.y, c.z, c.w};
#pragma unroll
                for (int i = 0; i < 4; ++i) {
#pragma unroll
                    for (int j = 0; j < 8; ++j) {
                        product[i][j] = fmaf(left[i], right[j], product[i][j]);
                    }
                }
            }
        }
        if (tile == first) {  // the row has been seen whole, a quarter of it by each scanner
            squares += __shfl_xor_sync(ALL, squares, 1);
            squares += __shfl_xor_sync(ALL, squares, 2);
            shrink = squares > 0.0f ? 1.0f / sqrtf(squares) : 0.0f;
        }
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            __syncthreads();  // the tile, or the first half of its products, has been used
#pragma unroll
            for (int i = 0; i < 4; ++i) {
                *reinterpret_cast<float4*>(&scratch.staged[down * 4 + i][across * 4]) =
                    make_float4(product[i][half * 4], product[i][half * 4 + 1],
                                product[i][half * 4 + 2], product[i][half * 4 + 3]);
            }
            __syncthreads();  // the products are there
            for (int at = own_part; at < STAGED; at += SCANNERS) {
                const int column = half * STAGED + at;
                if (tile + column < end) {
                    // Half the squared distance, less the row's own part, the same for all.
                    const float key = shared.halves[column] - scratch.staged[own_row][at] * shrink;
                    insert(best, ranked(key, tile + column));
                }
            }
        }
    }
    __syncthreads();  // the last products have been used
#pragma unroll
    for (int i = 0; i < CANDIDATES; ++i) {
        scratch.proposed[own_row][own_part * CANDIDATES + i] = best[i];
    }
    __syncthreads();  // every scanner has proposed
    const int rows_here = min(TILE_ROWS, work.rows - first_row);
    for (int at = warp; at < rows_here; at += WARPS) {
        const Ranked mine = settle(work, centroids, first_row + at, first, end,
                                   scratch.proposed[at][lane], doubt, lane);
        if (gridDim.y == 1) {
            write_answer(work, first_row + at, mine, lane);
        } else {
            leave(work, first_row + at, mine, lane);
        }
    }
    if (gridDim.y == 1) {
        return;
    }
    __syncthreads();  // every warp has left what it found
    if (thread == 0) {
        shared.last = is_last(work.tickets + blockIdx.x);
    }
    __syncthreads();  // every thread knows whether its block is the last
    if (shared.last) {
        for (int at = warp; at < rows_here; at += WARPS) {
            merge(work, first_row + at, lane);
        }
    }
}

}  // namespace

extern "C" {

__global__ void __launch_bounds__(256, 4)
nearest_few_half(const float* embeddings, int rows, const __half* centroids, int k, int dimension,
                 int slice, int neighbours, int* index, float* distance,
                 unsigned long long* partial, unsigned* tickets) {
    const Work work = {embeddings, rows, k, dimension, slice, neighbours,
                       index, distance, partial, tickets};
    __shared__ Ranked found[WARPS * NEIGHBOURS];
    few(work, centroids, found);
}

__global__ void __launch_bounds__(256, 4)
nearest_few_float(const float* embeddings, int rows, const float* centroids, int k, int dimension,
                  int slice, int neighbours, int* index, float* distance,
                  unsigned long long* partial, unsigned* tickets) {
    const Work work = {embeddings, rows, k, dimension, slice, neighbours,
                       index, distance, partial, tickets};
    __shared__ Ranked found[WARPS * NEIGHBOURS];
    few(work, centroids, found);
}

__global__ void __launch_bounds__(256, 2)
nearest_many_half(const float* embeddings, int rows, const __half* centroids, int k, int dimension,
                  int slice, int neighbours, int* index, float* distance,
                  unsigned long long* partial, unsigned* tickets, const float* half_norms,
                  float doubt) {
    const Work work = {embeddings, rows, k, dimension, slice, neighbours,
                       index, distance, partial, tickets};
    __shared__ Shared shared;
    many(work, centroids, half_norms, doubt, shared);
}

__global__ void __launch_bounds__(256, 2)
nearest_many_float(const float* embeddings, int rows, const float* centroids, int k, int dimension,
                   int slice, int neighbours, int* index, float* distance,
                   unsigned long long* partial, unsigned* tickets, const float* half_norms,
                   float doubt) {
    const Work work = {embeddings, rows, k, dimension, slice, neighbours,
                       index, distance, partial, tickets};
    __shared__ Shared shared;
    many(work, centroids, half_norms, doubt, shared);
}

}  // extern "C"
