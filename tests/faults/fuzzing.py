"""Spoils small real pictures in every way and reads each: python fuzzing.py FOLDER SEED COUNT.

Prints what became of them as one line of JSON. Before each is read it stands in FOLDER/spoilt,
where it is found if reading it ended the program.
"""

import collections
import io
import json
import os
import random
import resource
import struct
import sys
import zlib

import numpy as np
from PIL import Image

from jetson_cluster import frame, preview

SIZE = 32  # of what the network would see
LIMITS = frame.Limits(max_bytes=1 << 20, max_pixels=1 << 20)
MEMORY = 4 << 30  # of addresses; a decoder that wants more is refused it, and the file with it
ABSURD = (0, 1, 2, 255, 256, 65535, 65536, 0x7fffffff, 0x80000000, 0xffffffff)


def pictures():
    """Name -> content: the accepted formats with their modes and compressions."""
    noise = np.random.RandomState(0).randint(0, 256, (24, 36, 4), np.uint8)
    smooth = np.linspace(0, 255, 24 * 36 * 4).reshape(24, 36, 4).astype(np.uint8)
    colour, plain = Image.fromarray(noise[..., :3]), Image.fromarray(smooth[..., :3])
    clear, grey = Image.fromarray(noise), Image.fromarray(noise[..., 0])
    deep = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112], exif[0x0132] = 6, "2021:02:18 20:55:00"
    made = [
        ("jpeg", colour, "JPEG", {"exif": exif}),
        ("jpeg-progressive", colour, "JPEG", {"progressive": True}),
        ("jpeg-grey", grey, "JPEG", {}), ("jpeg-cmyk", colour.convert("CMYK"), "JPEG", {}),
        ("jpeg-444", plain, "JPEG", {"subsampling": 0, "optimize": True}),
        ("png", colour, "PNG", {}), ("png-alpha", clear, "PNG", {}), ("png-grey", grey, "PNG", {}),
        ("png-palette", colour.quantize(8), "PNG", {"transparency": 3}),
        ("png-bit", grey.convert("1"), "PNG", {}), ("png-16", deep, "PNG", {}),
        ("webp", colour, "WEBP", {}), ("webp-lossless", clear, "WEBP", {"lossless": True}),
        ("webp-animated", colour, "WEBP", {
            "save_all": True, "append_images": [plain], "duration": 100}),
        ("tiff", colour, "TIFF", {}), ("tiff-16", deep, "TIFF", {}),
        ("tiff-pages", grey, "TIFF", {"save_all": True, "append_images": [grey]}),
        ("tiff-group4", grey.convert("1"), "TIFF", {"compression": "group4"}),
        ("bmp", colour, "BMP", {}), ("bmp-palette", colour.quantize(16), "BMP", {}),
        ("gif", colour, "GIF", {}),
        ("gif-animated", colour.quantize(8), "GIF", {
            "save_all": True, "append_images": [plain.quantize(8)]}),
        ("ppm", colour, "PPM", {}), ("pgm", grey, "PPM", {}), ("pbm", grey.convert("1"), "PPM", {}),
    ]
    made += [("tiff-" + compression, plain, "TIFF", {"compression": compression})
             for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")]
    found = {}
    for name, picture, kind, options in made:
        stream = io.BytesIO()
        picture.save(stream, kind, **options)
        found[name] = stream.getvalue()
    return found


# ---- ways to spoil a file ----------------------------------------------------------------------

def flip_bits(chance, content, others):
    spoilt = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8, 64))):
        spoilt[chance.randrange(len(spoilt))] ^= 1 << chance.randrange(8)
    return spoilt


def cut_off(chance, content, others):
    return content[:chance.randrange(len(content))]


def set_a_number(chance, content, others):
    """As sizes, offsets and counts are written, near the beginning more often than not."""
    kind = chance.choice("<I >I <H >H B".split())
    size = struct.calcsize(kind)
    place = chance.randrange(min(len(content), chance.choice((64, 1 << 20))) - size + 1)
    value = chance.choice(ABSURD) & (1 << 8 * size) - 1
    return content[:place] + struct.pack(kind, value) + content[place + size:]


def overwrite(chance, content, others):
    start = chance.randrange(len(content))
    length = chance.randrange(1, 64)
    filling = chance.choice((b"\0", b"\xff", bytes([chance.randrange(256)])))
    return content[:start] + filling * length + content[start + length:]


def take_out(chance, content, others):
    start = chance.randrange(len(content))
    return content[:start] + content[start + chance.randrange(1, 200):]


def repeat(chance, content, others):
    start = chance.randrange(len(content))
    piece = content[start:start + chance.randrange(1, 200)]
    return content[:start] + piece * chance.choice((2, 3, 50)) + content[start + len(piece):]


def splice(chance, content, others):
    """The beginning of one file and the end of another."""
    other = chance.choice(others)
    return content[:chance.randrange(1, 64)] + other[chance.randrange(len(other)):]


def digits(chance, content, others):
    """Sizes as netpbm files write them."""
    sizes = [chance.choice(ABSURD) for _ in range(3)]
    return b"P%d %d %d %d\n" % (chance.choice((4, 5, 6)), *sizes) + content


WAYS = (flip_bits, flip_bits, cut_off, set_a_number, set_a_number, overwrite, take_out, repeat,
        splice, digits)


def with_png_checksums(content):
    """A PNG whose chunks' checksums are right again, so that its decoder looks further."""
    mended, place = bytearray(content), 8
    while place + 12 <= len(mended):
        length = struct.unpack_from(">I", mended, place)[0]
        end = place + 8 + length
        if end + 4 > len(mended):
            break
        struct.pack_into(">I", mended, end, zlib.crc32(bytes(mended[place + 4:end])) & 0xffffffff)
        place = end + 4
    return bytes(mended)


def spoil(chance, contents):
    name = chance.choice(sorted(contents))
    content = contents[name]
    for _ in range(chance.choice((1, 1, 2, 3))):
        if len(content) < 16:
            break
        content = bytes(chance.choice(WAYS)(chance, content, sorted(contents.values())))
    if name.startswith("png") and chance.random() < 0.7:
        content = with_png_checksums(content)
    return name, content


def main(folder, seed, count):
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    chance, contents = random.Random(seed), pictures()
    path = os.path.join(folder, "spoilt")

    def read(content):
        with open(path, "wb") as stream:
            stream.write(content)
        return frame.load(path, SIZE, SIZE, LIMITS, examine=lambda image: preview.examine(
            image, "webp", 2048))

    for name, content in sorted(contents.items()):
        assert read(content).pixels.shape == (SIZE, SIZE, 3), name
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcomes, peak = collections.Counter(), collections.Counter()
    for _ in range(count):
        name, content = spoil(chance, contents)
        try:
            held = read(content)
            assert held.pixels.shape == (SIZE, SIZE, 3) and held.pixels.dtype == np.uint8
            outcomes["read"] += 1
        except frame.Refused as refused:
            assert refused.code in frame.CODES and refused.reason
            outcomes[refused.code] += 1
        now = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        if now > before:
            peak[name] += now - before
            before = now
    os.unlink(path)
    print(json.dumps({"outcomes": outcomes, "grown_kb": sum(peak.values()), "by": peak}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
