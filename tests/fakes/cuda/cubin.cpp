// A cubin is an ELF file with a section .nv.info.NAME for each kernel: a list of attributes, each a
// byte that says its form, a byte that says its kind, and two bytes of value or of length.
#include "cubin.h"

#include <elf.h>

#include <cstdint>
#include <cstring>

namespace cubin {

namespace {

const int EM_CUDA_MACHINE = 190;
const int FORM_SIZED = 4;             // the two bytes are the length of what follows
const int KIND_BLOCK = 0x05;          // the most threads of a block: x, y, z
const int KIND_PARAMETER = 0x17;      // one parameter: number, offset, size in the upper 14 bits
const int KIND_PARAMETER_BYTES = 0x19;

Kernel described(const unsigned char* at, size_t bytes) {
    Kernel kernel;
    const unsigned char* end = at + bytes;
    while (at + 4 <= end) {
        const int form = at[0];
        const int kind = at[1];
        const uint16_t value = static_cast<uint16_t>(at[2] | at[3] << 8);
        at += 4;
        if (kind == KIND_PARAMETER_BYTES) {
            kernel.bytes = value;
        }
        if (form != FORM_SIZED) {
            continue;
        }
        if (kind == KIND_BLOCK) {
            uint32_t sides[3];
            memcpy(sides, at, sizeof(sides));
            kernel.most_threads = sides[0] * sides[1] * sides[2];
        } else if (kind == KIND_PARAMETER) {
            uint16_t number, offset;
            uint32_t packed;
            memcpy(&number, at + 4, sizeof(number));
            memcpy(&offset, at + 6, sizeof(offset));
            memcpy(&packed, at + 8, sizeof(packed));
            if (kernel.offsets.size() <= number) {
                kernel.offsets.resize(number + 1);
                kernel.sizes.resize(number + 1);
            }
            kernel.offsets[number] = offset;
            kernel.sizes[number] = packed >> 18;
        }
        at += value;
    }
    return kernel;
}

}  // namespace

std::string read(const void* image, unsigned architecture, std::map<std::string, Kernel>* kernels) {
    const char* start = static_cast<const char*>(image);
    const Elf64_Ehdr* header = static_cast<const Elf64_Ehdr*>(image);
    if (memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 || header->e_machine != EM_CUDA_MACHINE) {
        return "not a cubin";
    }
    if ((header->e_flags & 0xff) != architecture) {
        return "a cubin for sm_" + std::to_string(header->e_flags & 0xff) + ", this device is sm_" +
            std::to_string(architecture);
    }
    const Elf64_Shdr* sections = reinterpret_cast<const Elf64_Shdr*>(start + header->e_shoff);
    const char* names = start + sections[header->e_shstrndx].sh_offset;
    const std::string prefix = ".nv.info.";
    for (int i = 0; i < header->e_shnum; ++i) {
        const std::string name = names + sections[i].sh_name;
        if (name.compare(0, prefix.size(), prefix) == 0) {
            (*kernels)[name.substr(prefix.size())] = described(
                reinterpret_cast<const unsigned char*>(start + sections[i].sh_offset),
                sections[i].sh_size);
        }
    }
    return kernels->empty() ? "a cubin without kernels" : "";
}

}  // namespace cubin
