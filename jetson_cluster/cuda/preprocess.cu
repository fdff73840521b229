// Camera frames as the network wants them: uint8 [frames, height, width, 3] to float32
// [frames, 3, height, width], the same numbers, 0 to 255.
//
// Bytes pass through shared memory: they are read as whole words in a row and written as whole
// floats in a row, whatever the alignment. `pixels` is height x width; `bytes` is that of the whole
// input, frames x pixels x 3; `frames` starts on a multiple of 4 bytes, as every allocation does.
//
// Grid: (pixels / 1024 rounded up, frames), blocks of 256 threads.

namespace {

const int THREADS = 256;
const int PIXELS = 1024;  // of one block: twelve words in and twelve floats out per four threads
const int WORDS = PIXELS * 3 / 4 + 1;  // one more, as the first byte may lie anywhere in its word

}  // namespace

extern "C" __global__ void __launch_bounds__(256)
frames_to_planes(const unsigned char* frames, unsigned long long bytes, int pixels,
                 float* planes) {
    __shared__ unsigned words[WORDS];
    const int first_pixel = blockIdx.x * PIXELS;
    const int here = min(PIXELS, pixels - first_pixel);
    const size_t first_byte = (static_cast<size_t>(blockIdx.y) * pixels + first_pixel) * 3;
    const size_t first_word = first_byte / 4;
    const int shift = static_cast<int>(first_byte % 4);
    const int needed = (shift + here * 3 + 3) / 4;
    for (int at = threadIdx.x; at < needed; at += THREADS) {
        const size_t word = first_word + at;
        if (word * 4 + 4 <= bytes) {
            words[at] = __ldg(reinterpret_cast<const unsigned*>(frames) + word);
        } else {  // the input ends within this word
            unsigned rest = 0;
            for (size_t byte = word * 4; byte < bytes; ++byte) {
                rest |= static_cast<unsigned>(frames[byte]) << (8 * (byte % 4));
            }
            words[at] = rest;
        }
    }
    __syncthreads();
    const unsigned char* pixel = reinterpret_cast<const unsigned char*>(words) + shift;
    float* plane = planes + static_cast<size_t>(blockIdx.y) * 3 * pixels + first_pixel;
    for (int at = threadIdx.x; at < here; at += THREADS) {
        plane[at] = pixel[at * 3];
        plane[at + static_cast<size_t>(pixels)] = pixel[at * 3 + 1];
        plane[at + 2 * static_cast<size_t>(pixels)] = pixel[at * 3 + 2];
    }
}
