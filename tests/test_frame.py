"""One file to pixels: every kind of image comes out true, every bad one is refused by name.

Files are made by hand where Pillow cannot write them, so that what is read is not only what was
written by the same library.
"""

import hashlib
import io
import os
import random
import socket
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageDraw
from PIL.PngImagePlugin import PngInfo

from jetson_cluster import frame
from jetson_cluster.frame import CODES, Limits, Refused, identify, load
from jetson_cluster.walker import look

WIDTH, HEIGHT = 32, 16
CAMERA_12_BIT = Limits(sixteen_bit_white=4095)


# ---- files -----------------------------------------------------------------------------------


def quadrants(*colours):
    """uint8 [16, 32, ...]: one colour for each quarter, in reading order."""
    picture = np.zeros((HEIGHT, WIDTH) + np.shape(colours[0]), np.asarray(colours).dtype)
    for number, colour in enumerate(colours):
        rows = slice(0, 8) if number < 2 else slice(8, 16)
        columns = slice(16, 32) if number % 2 else slice(0, 16)
        picture[rows, columns] = colour
    return picture


COLOURS = quadrants((255, 0, 0), (0, 200, 0), (10, 20, 250), (255, 255, 255)).astype(np.uint8)
GREYS = quadrants(0, 80, 160, 255).astype(np.uint8)
BLACK_WHITE = quadrants(0, 255, 255, 0).astype(np.uint8)


def as_rgb(grey):
    return np.repeat(grey[:, :, None], 3, axis=2)


def saved(image, image_format, **options):
    stream = io.BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()


def png_chunk(kind, data):
    return (struct.pack(">I", len(data)) + kind + data
            + struct.pack(">I", zlib.crc32(kind + data) & 0xffffffff))


def png(pixels, depth, colour_type, size=None, before_data=b""):
    """A PNG of raw big-endian rows; `size` forges the header."""
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    width, height = size or (pixels.shape[1], pixels.shape[0])
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + before_data
            + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b""))


def tiff(pixels, photometric=1, deflate=False, sample_format=None, extra_alpha=False):
    """A TIFF of one strip in the array's own byte order: [height, width(, bands)]."""
    order = ">" if pixels.dtype.byteorder == ">" else "<"
    bands = 1 if pixels.ndim == 2 else pixels.shape[2]
    kind = {"u": 1, "i": 2, "f": 3}[pixels.dtype.kind]
    data = pixels.tobytes()
    data = zlib.compress(data) if deflate else data
    bits = [8 * pixels.dtype.itemsize] * bands
    tags = [(256, "I", [pixels.shape[1]]), (257, "I", [pixels.shape[0]]), (258, "H", bits),
            (259, "H", [8 if deflate else 1]), (262, "H", [photometric]), (273, "I", None),
            (277, "H", [bands]), (278, "I", [pixels.shape[0]]), (279, "I", [len(data)])]
    if extra_alpha:
        tags.append((338, "H", [2]))
    tags.append((339, "H", [sample_format or kind] * bands))
    behind = 8 + 2 + 12 * len(tags) + 4
    long_values, entries = b"", b""
    data_at = behind + sum(2 * len(values) for _, _, values in tags if values and len(values) > 2)
    for tag, code, values in tags:
        values = [data_at] if values is None else values
        packed = struct.pack(order + code * len(values), *values)
        if len(packed) > 4:
            place = struct.pack(order + "I", behind + len(long_values))
            long_values, packed = long_values + packed, place
        entries += struct.pack(order + "HHI", tag, {"H": 3, "I": 4}[code], len(values))
        entries += packed.ljust(4, b"\0")
    start = b"MM\0*" if order == ">" else b"II*\0"
    return (start + struct.pack(order + "I", 8) + struct.pack(order + "H", len(tags)) + entries
            + struct.pack(order + "I", 0) + long_values + data)


def exif(orientation=1, taken=None, offset=None):
    """An EXIF block, without the "Exif" mark before it: orientation, and times in a sub-folder."""
    texts = [(tag, text.encode() + b"\0")
             for tag, text in ((0x9003, taken), (0x9011, offset)) if text]
    folder_at = 8 + 2 + 2 * 12 + 4
    text_at = folder_at + 2 + 12 * len(texts) + 4
    head = (b"MM\0*" + struct.pack(">IH", 8, 2)
            + struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
            + struct.pack(">HHII", 0x8769, 4, 1, folder_at) + struct.pack(">I", 0))
    entries, behind = struct.pack(">H", len(texts)), b""
    for tag, text in texts:
        entries += struct.pack(">HHII", tag, 2, len(text), text_at + len(behind))
        behind += text
    return head + entries + struct.pack(">I", 0) + behind


@pytest.fixture
def put(tmp_path):
    def put_file(content, name="image"):
        path = tmp_path / name
        path.write_bytes(content)
        return str(path)

    return put_file


@pytest.fixture
def pixels_of(put):
    """The pixels of an image of this content, at its own size."""
    def read(content, limits=Limits(), width=WIDTH, height=HEIGHT):
        result = load(put(content), width, height, limits)
        assert (result.width, result.height) == (width, height)
        assert result.pixels.shape == (height, width, 3) and result.pixels.dtype == np.uint8
        assert result.pixels.flags.c_contiguous
        return result.pixels

    return read


@pytest.fixture
def refusal_of(put):
    """Why this content is refused."""
    def read(content, limits=Limits()):
        with pytest.raises(Refused) as caught:
            load(put(content), WIDTH, HEIGHT, limits)
        assert caught.value.code in CODES
        return caught.value

    return read


# ---- formats, depths and modes ---------------------------------------------------------------

PALETTE = Image.fromarray(COLOURS).convert("P", palette=Image.ADAPTIVE, colors=4)

LOSSLESS = [
    ("PNG", "1", BLACK_WHITE, {}), ("PNG", "L", GREYS, {}), ("PNG", "RGB", COLOURS, {}),
    ("PNG", "RGB", COLOURS, {"interlace": 1}),
    ("TIFF", "1", BLACK_WHITE, {}), ("TIFF", "1", BLACK_WHITE, {"compression": "group4"}),
    ("TIFF", "L", GREYS, {}), ("TIFF", "RGB", COLOURS, {}),
    ("TIFF", "RGB", COLOURS, {"compression": "tiff_lzw"}),
    ("TIFF", "RGB", COLOURS, {"compression": "tiff_adobe_deflate"}),
    ("BMP", "1", BLACK_WHITE, {}), ("BMP", "L", GREYS, {}), ("BMP", "RGB", COLOURS, {}),
    ("GIF", "L", GREYS, {}), ("PPM", "1", BLACK_WHITE, {}), ("PPM", "L", GREYS, {}),
    ("PPM", "RGB", COLOURS, {}), ("WEBP", "RGB", COLOURS, {"lossless": True}),
]


@pytest.mark.parametrize("image_format, mode, pixels, options", LOSSLESS)
def test_lossless_files_come_out_exactly(image_format, mode, pixels, options, pixels_of):
    content = saved(Image.fromarray(pixels).convert(mode), image_format, **options)
    expected = pixels if pixels.ndim == 3 else as_rgb(pixels)
    assert np.array_equal(pixels_of(content), expected)


@pytest.mark.parametrize("image_format", ["PNG", "TIFF", "BMP", "GIF"])
def test_palettes_come_out_as_their_colours(image_format, pixels_of):
    expected = np.asarray(PALETTE.convert("RGB"))
    assert np.abs(expected.astype(int) - COLOURS).max() <= 8
    assert np.array_equal(pixels_of(saved(PALETTE, image_format)), expected)


@pytest.mark.parametrize("mode, pixels", [("RGB", COLOURS), ("L", GREYS)])
@pytest.mark.parametrize("options", [{}, {"progressive": True}])
def test_jpegs_come_out_nearly(mode, pixels, options, pixels_of):
    content = saved(Image.fromarray(pixels), "JPEG", quality=95, subsampling=0, **options)
    expected = pixels if pixels.ndim == 3 else as_rgb(pixels)
    assert np.abs(pixels_of(content).astype(int) - expected).max() <= 6


def test_inks_are_not_mistaken_for_light(pixels_of):
    inks = quadrants((255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 0, 255), (0, 0, 0, 0)).astype(np.uint8)
    expected = quadrants((0, 255, 255), (255, 0, 255), (0, 0, 0), (255, 255, 255))
    image = Image.fromarray(inks, "CMYK")
    jpeg = saved(image, "JPEG", quality=95, subsampling=0)  # with Adobe's mark: inks are inverted
    assert b"Adobe" in jpeg
    for content in (jpeg, saved(image, "TIFF")):
        assert np.abs(pixels_of(content).astype(int) - expected).max() <= 6


@pytest.mark.parametrize("white", [65535, 4095])
def test_sixteen_bit_grey_reaches_from_black_to_white(white, pixels_of):
    levels = [0, white // 3, white // 2, white]
    deep = quadrants(*levels).astype("<u2")
    expected = as_rgb(quadrants(*[round(level * 255 / white) for level in levels]))
    limits = Limits(sixteen_bit_white=white)
    for content in (png(deep.astype(">u2"), 16, 0), tiff(deep), tiff(deep.astype(">u2")),
                    tiff(deep, deflate=True)):
        assert np.array_equal(pixels_of(content, limits), expected)


def test_numbers_beyond_white_are_white_and_below_zero_black(pixels_of):
    beyond = quadrants(0, 4095, 4096, 65535).astype("<u2")
    assert np.array_equal(pixels_of(tiff(beyond), CAMERA_12_BIT),
                          as_rgb(quadrants(0, 255, 255, 255)))
    signed = quadrants(-5, 0, 819, 4095).astype("<i2")
    for content in (tiff(signed), tiff(signed.astype(">i2"))):
        assert np.array_equal(pixels_of(content, CAMERA_12_BIT), as_rgb(quadrants(0, 0, 51, 255)))


@pytest.mark.parametrize("white", [65535, 4095])
@pytest.mark.parametrize("bands", [3, 4])
def test_sixteen_bit_colour_reaches_from_black_to_white(white, bands, pixels_of):
    third, alpha = white // 3, (65535,) * (bands - 3)
    deep = quadrants((white, 0, 0) + alpha, (0, third, 0) + alpha, (0, 7, white) + alpha,
                     (white, white, white) + alpha).astype("<u2")
    expected = quadrants((255, 0, 0), (0, 85, 0), (0, 0, 255), (255, 255, 255))
    limits = Limits(sixteen_bit_white=white)
    for content in (png(deep.astype(">u2"), 16, 2 if bands == 3 else 6),
                    tiff(deep, 2, extra_alpha=bands == 4),
                    tiff(deep.astype(">u2"), 2, extra_alpha=bands == 4),
                    tiff(deep, 2, deflate=True, extra_alpha=bands == 4)):
        assert np.array_equal(pixels_of(content, limits), expected)


def test_sixteen_bit_grey_with_alpha_is_read_or_refused_by_name(pixels_of, refusal_of):
    deep = quadrants((0, 65535), (65535, 65535), (65535, 0), (32896, 65535)).astype(">u2")
    content = png(deep, 16, 4)
    assert np.array_equal(pixels_of(content), as_rgb(quadrants(0, 255, 0, 128)))
    assert refusal_of(content, CAMERA_12_BIT).code == "unsupported"


def test_floats_are_stretched_between_the_lowest_and_the_highest(pixels_of):
    for order in "<>":
        values = quadrants(-2.0, -1.0, 0.0, 3.0).astype(order + "f4")
        assert np.array_equal(pixels_of(tiff(values)), as_rgb(quadrants(0, 51, 102, 255)))


def test_missing_float_pixels_are_black_and_do_not_count(pixels_of):
    values = quadrants(10.0, 20.0, 15.0, 10.0).astype("<f4")
    values[0, :4] = (np.nan, np.inf, -np.inf, -3.4028226e38)
    pixels = pixels_of(tiff(values))
    assert not pixels[0, :4].any()
    assert pixels[0, 20].tolist() == [255] * 3 and pixels[12, 0].tolist() == [128] * 3


@pytest.mark.parametrize("value", [7.0, np.nan])
def test_floats_without_any_contrast_are_black(value, pixels_of):
    assert not pixels_of(tiff(np.full((HEIGHT, WIDTH), value, "<f4"))).any()


def test_32_bit_integers_are_stretched_too(pixels_of):
    for values in (quadrants(0, 1 << 30, 1 << 31, 0xffffffff).astype("<u4"),
                   quadrants(-(1 << 31), -(1 << 30), 0, (1 << 31) - 1).astype("<i4")):
        assert np.array_equal(pixels_of(tiff(values)), as_rgb(quadrants(0, 64, 128, 255)))


def test_where_zero_is_white_it_comes_out_white(put, pixels_of):
    assert np.array_equal(pixels_of(tiff(GREYS, photometric=0)), as_rgb(255 - GREYS))
    deep = tiff(GREYS.astype("<u2") * 257, photometric=0)
    try:
        pixels = load(put(deep), WIDTH, HEIGHT).pixels
    except Refused as refused:
        assert refused.code == "damaged"  # Pillow 8.4 does not know this kind
    else:
        assert np.array_equal(pixels, as_rgb(255 - GREYS))


def test_a_pnm_file_names_its_own_white(pixels_of):
    deep = quadrants(0, 1365, 2047, 4095).astype(">u2").tobytes()
    expected = as_rgb(quadrants(0, 85, 127, 255))
    for comment in (b"", b"# 12 bits\n"):
        content = b"P5\n" + comment + b"32 16\n4095\n" + deep
        for limits in (Limits(), CAMERA_12_BIT):
            assert np.abs(pixels_of(content, limits).astype(int) - expected).max() <= 1
    full = (GREYS.astype(">u2") * 257).tobytes()
    assert np.array_equal(pixels_of(b"P5 32 16 65535\n" + full, CAMERA_12_BIT), as_rgb(GREYS))
    few = quadrants(0, 20, 50, 100).astype(np.uint8)
    assert np.abs(pixels_of(b"P5 32 16 100\n" + few.tobytes()).astype(int)
                  - as_rgb(quadrants(0, 51, 128, 255))).max() <= 1


def test_what_is_transparent_becomes_black(pixels_of):
    see_through = quadrants((255, 255, 255, 0), (255, 255, 255, 255), (255, 0, 0, 128),
                            (0, 255, 0, 255)).astype(np.uint8)
    expected = quadrants((0, 0, 0), (255, 255, 255), (128, 0, 0), (0, 255, 0))
    image = Image.fromarray(see_through)
    for content in (saved(image, "PNG"), saved(image, "TIFF"),
                    saved(image, "WEBP", lossless=True)):
        assert np.array_equal(pixels_of(content), expected)
    grey = saved(image.convert("LA"), "PNG")
    assert np.array_equal(pixels_of(grey)[0, [0, 20]], [[0] * 3, [255] * 3])


@pytest.mark.parametrize("image_format", ["PNG", "GIF"])
def test_a_transparent_palette_colour_becomes_black(image_format, pixels_of):
    white = PALETTE.getpixel((31, 15))
    pixels = pixels_of(saved(PALETTE, image_format, transparency=white))
    assert pixels[15, 31].tolist() == [0, 0, 0]
    assert np.abs(pixels[0, 0].astype(int) - (255, 0, 0)).max() <= 8


def test_a_colour_named_transparent_becomes_black(pixels_of):
    pixels = pixels_of(saved(Image.fromarray(COLOURS), "PNG", transparency=(255, 255, 255)))
    assert pixels[15, 31].tolist() == [0, 0, 0] and pixels[0, 0].tolist() == [255, 0, 0]
    pixels = pixels_of(saved(Image.fromarray(GREYS), "PNG", transparency=255))
    assert pixels[15, 31].tolist() == [0, 0, 0] and pixels[0, 31].tolist() == [80] * 3


def test_lab_colours_are_refused_and_not_guessed(refusal_of):
    assert refusal_of(tiff(COLOURS, photometric=8)).code == "unsupported"


@pytest.mark.parametrize("image_format, options", [
    ("GIF", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "duration": 100})])
def test_of_several_pictures_the_first_counts(image_format, options, put):
    pictures = [Image.fromarray(np.full((HEIGHT, WIDTH), level, np.uint8))
                for level in (200, 90, 10)]
    content = saved(pictures[0], image_format, save_all=True, append_images=pictures[1:], **options)
    assert (load(put(content), 8, 8).pixels == 200).all()


def test_the_content_decides_not_the_suffix(put):
    content = saved(Image.fromarray(COLOURS), "PNG")
    for name in ("image.jpg", "image", "image.txt"):
        assert np.array_equal(load(put(content, name), WIDTH, HEIGHT).pixels, COLOURS)


# ---- size and orientation --------------------------------------------------------------------


def test_the_aspect_is_not_kept_and_the_true_size_is_told(put):
    result = load(put(saved(Image.fromarray(COLOURS), "PNG")), 10, 20)
    assert result.pixels.shape == (20, 10, 3)
    assert (result.width, result.height) == (WIDTH, HEIGHT)
    assert result.pixels[2, 2].tolist() == [255, 0, 0]


@pytest.mark.parametrize("resample", sorted(frame.RESAMPLES))
def test_the_named_resampling_is_used(resample, put):
    picture = Image.fromarray(np.random.RandomState(0).randint(0, 256, (60, 80, 3), np.uint8))
    expected = picture.resize((23, 17), getattr(Image, resample.upper()))
    result = load(put(saved(picture, "PNG")), 23, 17, resample=resample)
    assert np.array_equal(result.pixels, np.asarray(expected))


def stones(width, height):
    picture, chance = Image.new("RGB", (width, height), (180, 120, 80)), random.Random(0)
    draw = ImageDraw.Draw(picture)
    for _ in range(300):
        x, y, size = chance.randrange(width), chance.randrange(height), chance.randrange(5, 60)
        draw.ellipse((x - size, y - size, x + size, y + size),
                     fill=tuple(chance.randrange(40, 220) for _ in range(3)))
    return picture


# 1209 is one more than a multiple of 8: the last column the decoder shrinks is mostly empty.
@pytest.mark.parametrize("size, wanted", [((1600, 1200), (299, 299)), ((1209, 1209), (75, 75))])
def test_a_large_jpeg_decoded_small_looks_the_same(size, wanted, put):
    content = saved(stones(*size), "JPEG", quality=90)
    result = load(put(content), *wanted)
    assert (result.width, result.height) == size
    full = Image.open(io.BytesIO(content)).resize(wanted, Image.BICUBIC)
    assert np.abs(result.pixels.astype(int) - np.asarray(full)).mean() < 1.0


# From how the rows and columns are stored to how they are meant to be seen (EXIF 2.3, tag 0x0112).
UPRIGHT = {
    1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1), 8: lambda a: np.rot90(a, 1)}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format, options", [
    ("JPEG", {"quality": 95, "subsampling": 0}), ("PNG", {}), ("WEBP", {"lossless": True}),
    ("TIFF", {}), ("TIFF", {"compression": "tiff_adobe_deflate"})])
def test_images_are_turned_upright(image_format, options, orientation, pixels_of):
    if image_format == "TIFF":
        options = dict(options, tiffinfo={0x0112: orientation})
    else:
        options = dict(options, exif=b"Exif\0\0" + exif(orientation))
    content = saved(Image.fromarray(COLOURS), image_format, **options)
    expected = UPRIGHT[orientation](COLOURS)
    pixels = pixels_of(content, width=expected.shape[1], height=expected.shape[0])
    assert np.abs(pixels.astype(int) - expected).max() <= 6


def test_a_large_turned_jpeg_is_shrunk_along_the_right_sides(put):
    content = saved(stones(400, 1600), "JPEG", exif=b"Exif\0\0" + exif(6))
    result = load(put(content), 50, 200)
    assert (result.width, result.height) == (1600, 400)
    full = Image.open(io.BytesIO(content)).transpose(Image.ROTATE_270)
    full = full.resize((50, 200), Image.BICUBIC)
    # Its short side leaves no room for shrinking while it is decoded.
    assert np.abs(result.pixels.astype(int) - np.asarray(full)).max() <= 2


@pytest.mark.parametrize("block", [b"", b"\xff" * 40, exif(0), exif(9), exif(60000)])
def test_broken_exif_does_not_cost_the_image(block, pixels_of):
    content = saved(Image.fromarray(GREYS), "JPEG", quality=95, exif=b"Exif\0\0" + block)
    assert np.abs(pixels_of(content).astype(int) - as_rgb(GREYS)).max() <= 6


# ---- what is told about the file -------------------------------------------------------------


@pytest.mark.parametrize("taken, offset, expected", [
    ("2026:11:22 06:40:00", None, "2026-11-22T06:40:00Z"),
    ("2026:11:22 06:40:00", "+02:00", "2026-11-22T04:40:00Z"),
    ("2026:12:31 20:40:00", "-05:30", "2027-01-01T02:10:00Z"),
    ("2026:11:22 06:40:00", "   :  ", "2026-11-22T06:40:00Z"),
    ("0000:00:00 00:00:00", None, "2001-09-09T01:46:40Z"),
    ("0001:01:01 00:00:00", "+01:00", "2001-09-09T01:46:40Z"),
    ("yesterday", None, "2001-09-09T01:46:40Z"),
    (None, None, "2001-09-09T01:46:40Z"),
])
@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_the_camera_says_when_else_the_file_does(image_format, taken, offset, expected, put):
    block = b"Exif\0\0" + exif(1, taken, offset)
    path = put(saved(Image.fromarray(GREYS), image_format, exif=block))
    os.utime(path, (0, 1000000000))
    assert load(path, 8, 8).captured_at == expected


@pytest.mark.parametrize("seconds, expected", [
    (-1, "1969-12-31T23:59:59Z"), (1.5, "1970-01-01T00:00:01Z"),
    (1e15, "9999-12-31T23:59:59Z"), (-1e15, "0001-01-01T00:00:00Z")])
def test_any_file_time_is_a_date(seconds, expected):
    assert frame._utc(seconds) == expected


def test_identity_is_the_sha256_of_the_bytes(put):
    content = saved(Image.fromarray(COLOURS), "PNG")
    result = load(put(content), 8, 8)
    assert result.sha256 == hashlib.sha256(content).hexdigest()
    assert result.bytes == len(content)
    assert load(put(content, "another"), 8, 8).sha256 == result.sha256


@pytest.mark.parametrize("orientation", [1, 3, 6])
@pytest.mark.parametrize("image_format, options", [
    ("JPEG", {}), ("WEBP", {}), ("TIFF", {}), ("BMP", {}), ("PPM", {}), ("GIF", {}), ("PNG", {})])
def test_the_header_alone_tells_what_decoding_would(image_format, options, orientation, put):
    block = exif(orientation, "2026:11:22 06:40:00")
    if image_format == "TIFF":
        options = {"tiffinfo": {0x0112: orientation}}
    elif image_format in ("JPEG", "WEBP"):
        options = {"exif": b"Exif\0\0" + block}
    path = put(saved(Image.fromarray(COLOURS), image_format, **options))
    os.utime(path, (0, 1000000000))
    assert identify(path) == load(path, 8, 8)[:5]


def test_a_png_is_identified_without_decoding_and_its_exif_waits(put, monkeypatch):
    content = saved(Image.fromarray(COLOURS), "PNG", exif=exif(6, "2026:11:22 06:40:00"))
    path = put(content)
    os.utime(path, (0, 1000000000))

    def decode(*_arguments):
        raise AssertionError("decoded")

    monkeypatch.setattr(Image.Image, "load", decode)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", decode)
    identity = identify(path)
    assert identity == (hashlib.sha256(content).hexdigest(), len(content), WIDTH, HEIGHT,
                        "2001-09-09T01:46:40Z")


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "BMP", "GIF", "PPM"])
def test_to_identify_a_file_decodes_no_pixel(kind, put):
    """A file whose pixels are all cut off is still known for what its header says."""
    content = SAMPLES[kind]
    cut = put(content[:len(content) // 2])
    try:
        assert identify(cut)[2:4] == load(put(content, "whole"), 8, 8)[2:4]
    except Refused:
        assert kind == "WEBP"  # its reader wants the whole file


def test_to_identify_a_file_refuses_what_its_header_shows(put):
    picture_file = saved(Image.fromarray(COLOURS), "PNG")
    seen = look(put(picture_file))
    for content, limits, expected, code in (
            (b"", Limits(), None, "empty"), (b"no picture", Limits(), None, "not_an_image"),
            (picture_file, Limits(max_bytes=9), None, "too_many_bytes"),
            (picture_file, Limits(max_pixels=9), None, "too_many_pixels"),
            (picture_file[:20], Limits(), None, "damaged"),
            (picture_file, Limits(), seen._replace(mtime_ns=1), "changed")):
        with pytest.raises(Refused) as caught:
            identify(put(content), limits, expected)
        assert caught.value.code == code


# ---- what else is made of the pixels ---------------------------------------------------------


@pytest.fixture
def shown(put):
    """What `examine` is shown of a file, as an image of its own, and the frame."""
    def show(content, width=8, height=8, limits=Limits()):
        seen = []
        result = load(put(content), width, height, limits,
                      examine=lambda image: seen.append(image.copy()) or "looked")
        assert result.examined == "looked" and len(seen) == 1
        return seen[0], result

    return show


@pytest.mark.parametrize("image_format, mode, pixels, options", LOSSLESS)
def test_the_whole_image_is_shown_before_it_is_squeezed(image_format, mode, pixels, options, shown):
    image, result = shown(saved(Image.fromarray(pixels).convert(mode), image_format, **options))
    assert image.mode in ("L", "RGB") and result.pixels.shape == (8, 8, 3)
    expected = pixels if pixels.ndim == 3 else as_rgb(pixels)
    assert np.array_equal(np.asarray(image.convert("RGB")), expected)


def test_what_is_transparent_is_shown_as_such(shown):
    see_through = quadrants((255, 255, 255, 0), (255, 255, 255, 255), (255, 0, 0, 128),
                            (0, 255, 0, 255)).astype(np.uint8)
    for image_format in ("PNG", "TIFF"):
        image, _ = shown(saved(Image.fromarray(see_through), image_format))
        assert image.mode == "RGBA" and np.array_equal(np.asarray(image), see_through)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF"])
def test_the_image_is_shown_upright(image_format, orientation, shown):
    options = {"tiffinfo": {0x0112: orientation}} if image_format == "TIFF" else {
        "exif": b"Exif\0\0" + exif(orientation)}
    if image_format == "JPEG":
        options.update(quality=95, subsampling=0)
    image, result = shown(saved(Image.fromarray(COLOURS), image_format, **options),
                          *((HEIGHT, WIDTH) if orientation > 4 else (WIDTH, HEIGHT)))
    assert image.size == (result.width, result.height)
    assert np.array_equal(np.asarray(image), result.pixels)  # nothing was left to squeeze


def test_a_jpeg_is_shown_at_the_size_at_which_it_is_decoded(shown):
    image, result = shown(saved(Image.fromarray(COLOURS).resize((800, 400)), "JPEG"), 80, 40)
    assert (result.width, result.height) == (800, 400) and image.size == (200, 100)


@pytest.mark.parametrize("orientation", [1, 6])
def test_of_a_huge_image_evenly_spread_pixels_are_shown(orientation, shown, monkeypatch):
    content = saved(Image.fromarray(COLOURS).resize((400, 200), Image.NEAREST), "PNG",
                    exif=b"Exif\0\0" + exif(orientation))
    monkeypatch.setattr(frame, "EXAMINED_PIXELS", 5000)
    image, result = shown(content)
    assert (result.width, result.height) == ((200, 400) if orientation == 6 else (400, 200))
    assert sorted(image.size) == [50, 100]
    corners = np.asarray(image)[[0, 0, -1, -1], [0, -1, 0, -1]].tolist()
    expected = [(255, 0, 0), (0, 200, 0), (10, 20, 250), (255, 255, 255)]
    if orientation == 6:
        expected = [expected[place] for place in (2, 0, 3, 1)]
    assert corners == [list(colour) for colour in expected]


def test_to_look_at_an_image_changes_nothing_of_its_frame(put):
    for content in (saved(Image.fromarray(COLOURS), "PNG"), saved(Image.fromarray(GREYS), "JPEG")):
        path = put(content)
        plain, looked = load(path, 8, 8), load(path, 8, 8, examine=lambda image: image.size)
        assert plain.examined is None and looked.examined == (WIDTH, HEIGHT)
        assert np.array_equal(plain.pixels, looked.pixels)
        assert plain[:5] == looked[:5]


@pytest.mark.parametrize("error", [ValueError("no preview"), MemoryError(), KeyError("x\ny")])
def test_an_image_whose_examination_fails_is_still_a_good_image(error, put, caplog):
    def fail(_image):
        raise error

    path = put(saved(Image.fromarray(COLOURS), "PNG"))
    result = load(path, WIDTH, HEIGHT, examine=fail)
    assert result.examined is None and np.array_equal(result.pixels, COLOURS)
    record, = caplog.records
    assert record.levelname == "WARNING" and record.getMessage().startswith(
        "ExamineFailed: " + path) and type(error).__name__ in record.getMessage()
    assert "\n" not in record.getMessage()


def test_an_interrupt_while_an_image_is_examined_is_no_failure_of_it(put):
    def interrupt(_image):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(put(saved(Image.fromarray(COLOURS), "PNG")), 8, 8, examine=interrupt)


# ---- files that are no images ----------------------------------------------------------------


def test_an_empty_file_is_refused(refusal_of):
    assert refusal_of(b"").code == "empty"


@pytest.mark.parametrize("content", [
    b"hello", b"\0" * 100, b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"<svg/>",
    b"RIFF\0\0\0\0WAVEfmt "])
def test_what_is_no_image_is_refused_and_told_what_would_be(content, refusal_of):
    refused = refusal_of(content)
    assert refused.code == "not_an_image"
    assert "JPEG, PNG, TIFF, WebP, BMP, GIF or PNM" in refused.reason
    assert content[:8].hex() in refused.reason


def test_a_file_with_too_many_bytes_is_refused_unread(refusal_of):
    refused = refusal_of(b"x" * 1001, Limits(max_bytes=1000))
    assert refused.code == "too_many_bytes"
    assert "1001" in refused.reason and "1000" in refused.reason


def test_a_file_of_just_the_allowed_bytes_and_pixels_is_read(put):
    content = saved(Image.fromarray(COLOURS), "PNG")
    load(put(content), 8, 8, Limits(max_bytes=len(content), max_pixels=WIDTH * HEIGHT))
    with pytest.raises(Refused) as caught:
        load(put(content), 8, 8, Limits(max_pixels=WIDTH * HEIGHT - 1))
    assert caught.value.code == "too_many_pixels"


def forged(content, old, new):
    assert content.count(old) == 1
    return content.replace(old, new)


def test_a_header_that_promises_too_much_is_refused_before_decoding(refusal_of):
    small = np.zeros((HEIGHT, WIDTH), np.uint8)
    gif = saved(Image.fromarray(COLOURS), "GIF")
    webp = b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0" + b"\0" * 4 + b"\xff" * 6
    bmp = saved(Image.fromarray(COLOURS), "BMP")
    jpeg = saved(Image.fromarray(COLOURS), "JPEG")
    for content in (
            png(small, 8, 0, size=(60000, 60000)),
            gif[:6] + struct.pack("<HH", 60000, 60000) + gif[10:],
            webp,
            bmp[:18] + struct.pack("<ii", 60000, 60000) + bmp[26:],
            forged(jpeg, struct.pack(">HH", HEIGHT, WIDTH), struct.pack(">HH", 60000, 60000)),
            b"P5 60000 60000 255\n" + b"\0" * 100,
            forged(tiff(small), struct.pack("<HHII", 256, 4, 1, WIDTH),
                   struct.pack("<HHII", 256, 4, 1, 1 << 30))):
        assert refusal_of(content).code == "too_many_pixels", content[:8]


@pytest.mark.parametrize("kind", [b"VP8 ", b"VP8L"])
def test_the_size_in_a_webp_header_is_read_right(kind):
    content = saved(Image.fromarray(COLOURS), "WEBP", lossless=kind == b"VP8L")
    assert content[12:16] == kind
    assert frame._webp_size(content) == (WIDTH, HEIGHT)


def test_the_canvas_in_an_extended_webp_header_is_read_right():
    content = saved(Image.fromarray(COLOURS), "WEBP", lossless=True, exif=exif())
    assert content[12:16] == b"VP8X"
    assert frame._webp_size(content) == (WIDTH, HEIGHT)


def test_a_real_bomb_is_refused(refusal_of):
    """400 million pixels in a file of some 50 KB."""
    row = b"\0" * (1 + 20000 // 8)
    packer, data = zlib.compressobj(9), []
    for _ in range(20000):
        data.append(packer.compress(row))
    data.append(packer.flush())
    header = struct.pack(">IIBBBBB", 20000, 20000, 1, 0, 0, 0, 0)
    content = (b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header)
               + png_chunk(b"IDAT", b"".join(data)) + png_chunk(b"IEND", b""))
    assert len(content) < 100000
    assert refusal_of(content).code == "too_many_pixels"


def test_a_bomb_in_a_text_chunk_is_refused(refusal_of):
    note = PngInfo()
    note.add_itxt("note", "x" * (80 * 1024 * 1024), zip=True)
    content = saved(Image.fromarray(COLOURS), "PNG", pnginfo=note)
    assert len(content) < 1024 * 1024
    assert refusal_of(content).code == "damaged"


def test_the_operators_pixel_limit_stands_above_pillows(put, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    load(put(saved(Image.fromarray(COLOURS), "PNG")), 8, 8)


def test_a_recursion_or_memory_error_in_a_decoder_is_a_refusal(put, monkeypatch):
    path = put(saved(Image.fromarray(COLOURS), "PNG"))
    for error, code in ((RecursionError("too deep"), "damaged"), (MemoryError(), "out_of_memory"),
                        (KeyError(65), "damaged"), (struct.error("\x1b[31m\nx" * 200), "damaged"),
                        (Image.DecompressionBombError("bomb"), "too_many_pixels")):
        def fail(*_arguments, error=error):
            raise error

        monkeypatch.setattr(frame, "to_eight_bits", fail)
        with pytest.raises(Refused) as caught:
            load(path, 8, 8)
        assert caught.value.code == code
        assert caught.value.reason.isprintable() and len(caught.value.reason) < 300


def test_an_interrupt_is_no_refusal(put, monkeypatch):
    def interrupt(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(frame, "to_eight_bits", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load(put(saved(Image.fromarray(COLOURS), "PNG")), 8, 8)


# ---- damaged files ---------------------------------------------------------------------------

TEXTURE = np.random.RandomState(1).randint(0, 256, (48, 64, 3), np.uint8)
SAMPLES = {
    "JPEG": saved(Image.fromarray(TEXTURE), "JPEG",
                  exif=b"Exif\0\0" + exif(6, "2026:11:22 06:40:00")),
    "progressive JPEG": saved(Image.fromarray(TEXTURE), "JPEG", progressive=True),
    "PNG": saved(Image.fromarray(TEXTURE), "PNG"),
    "deep PNG": png(np.repeat(TEXTURE[:, :, :1], 2, axis=1).astype(">u2"), 16, 0),
    "TIFF": saved(Image.fromarray(TEXTURE), "TIFF"),
    "LZW TIFF": saved(Image.fromarray(TEXTURE), "TIFF", compression="tiff_lzw"),
    "JPEG TIFF": saved(Image.fromarray(TEXTURE), "TIFF", compression="jpeg"),
    "float TIFF": tiff(TEXTURE[:, :, 0].astype("<f4")),
    "WEBP": saved(Image.fromarray(TEXTURE), "WEBP"),
    "lossless WEBP": saved(Image.fromarray(TEXTURE), "WEBP", lossless=True),
    "BMP": saved(Image.fromarray(TEXTURE), "BMP"),
    "GIF": saved(Image.fromarray(TEXTURE).convert("P"), "GIF"),
    "PPM": saved(Image.fromarray(TEXTURE), "PPM"),
}


def refusal_of_call(call, *arguments):
    """(what it gives, None), or (None, a refusal that reads well). Anything else is a failure."""
    try:
        return call(*arguments), None
    except Refused as refused:
        assert refused.code in CODES
        assert refused.reason.isprintable() and 0 < len(refused.reason) < 300
        return None, refused


def frame_or_refusal(path):
    """Loads; True for a frame, False for a refusal. The header alone must not be judged harder."""
    limits = Limits(max_pixels=1000000)
    identity, unknown = refusal_of_call(identify, path, limits)
    result, refused = refusal_of_call(load, path, 24, 24, limits)
    if refused:
        return False
    assert not unknown, unknown
    assert identity[:4] == result[:4]
    assert result.pixels.shape == (24, 24, 3)
    return True


@pytest.mark.filterwarnings("ignore")  # Pillow's, about what it makes of broken tags
@pytest.mark.parametrize("kind", sorted(SAMPLES))
def test_a_file_cut_off_in_its_pixels_is_refused(kind, put, refusal_of):
    content = SAMPLES[kind]
    for part in (0.3, 0.5, 0.7, 0.9):
        refused = refusal_of(content[:int(part * len(content))])
        assert refused.code == "damaged", (part, refused)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", sorted(SAMPLES))
def test_a_file_cut_off_anywhere_gives_a_frame_or_a_refusal(kind, put):
    content = SAMPLES[kind]
    places = list(range(64)) + list(range(64, len(content), max(1, len(content) // 40)))
    outcomes = [frame_or_refusal(put(content[:place])) for place in places]
    assert not any(outcomes[:20])
    assert frame_or_refusal(put(content))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", sorted(SAMPLES))
def test_a_file_with_flipped_bits_gives_a_frame_or_a_refusal(kind, put):
    chance = random.Random(kind)
    for _ in range(80):
        content = bytearray(SAMPLES[kind])
        reach = chance.choice([40, 300, len(content)])  # headers deserve more than their share
        for _ in range(chance.randint(1, 8)):
            content[chance.randrange(min(reach, len(content)))] ^= 1 << chance.randrange(8)
        frame_or_refusal(put(bytes(content)))


# ---- what the file system may do -------------------------------------------------------------


def refused_code(path, **options):
    with pytest.raises(Refused) as caught:
        load(path, 8, 8, **options)
    return caught.value.code


def test_what_is_no_file_is_refused_and_nothing_hangs(tmp_path, put):
    fifo, link, bound = str(tmp_path / "fifo"), str(tmp_path / "link"), str(tmp_path / "socket")
    os.mkfifo(fifo)
    os.symlink(put(saved(Image.fromarray(COLOURS), "PNG")), link)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(bound)
        for path in (fifo, link, bound, str(tmp_path), "/dev/zero"):
            assert refused_code(path) == "not_a_file"


def test_a_vanished_file_is_refused(tmp_path, put):
    assert refused_code(str(tmp_path / "nothing.jpg")) == "vanished"
    assert refused_code(put(b"x") + "/below-a-file.jpg") == "vanished"


def test_a_file_that_may_not_be_read_is_refused_with_the_systems_words(put, monkeypatch):
    def deny(*_arguments):  # root may read everything, and tests run as root
        raise PermissionError(13, "Permission denied")

    path = put(saved(Image.fromarray(COLOURS), "PNG"))
    monkeypatch.setattr(os, "open", deny)
    with pytest.raises(Refused, match="Permission denied"):
        load(path, 8, 8)


def test_a_file_is_read_only_if_it_is_the_one_that_was_seen(put):
    path = put(saved(Image.fromarray(COLOURS), "PNG"))
    seen = look(path)
    load(path, 8, 8, expected=seen)
    for other in (seen._replace(bytes=1), seen._replace(mtime_ns=1), seen._replace(inode=1)):
        assert refused_code(path, expected=other) == "changed"


@pytest.mark.parametrize("change", ["grow", "shrink", "touch"])
def test_a_file_written_to_while_it_is_read_is_refused(change, put, monkeypatch):
    path = put(saved(Image.fromarray(COLOURS), "PNG"))
    read_all = frame._read_all

    def meanwhile(descriptor, size):
        if change == "touch":
            os.utime(path, ns=(1, 1))
        else:
            with open(path, "r+b") as writer:
                writer.truncate(size // 2 if change == "shrink" else 2 * size)
        return read_all(descriptor, size)

    monkeypatch.setattr(frame, "_read_all", meanwhile)
    assert refused_code(path) == "changed"


def test_no_descriptor_is_left_open(tmp_path, put):
    image, text = put(saved(Image.fromarray(COLOURS), "TIFF")), put(b"text", "text")
    load(image, 8, 8)
    before = os.listdir("/proc/self/fd")
    for _ in range(5):
        load(image, 8, 8)
        assert refused_code(text) == "not_an_image"
        assert refused_code(str(tmp_path)) == "not_a_file"
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_every_real_mars_tile_is_read(mars):
    for path in sorted(mars.glob("*.png")):
        result = load(str(path), 299, 299)
        with Image.open(str(path)) as image:
            assert (result.width, result.height) == image.size
            expected = image.convert("RGB").resize((299, 299), Image.BICUBIC)
        assert np.abs(result.pixels.astype(int) - np.asarray(expected)).max() <= 1
