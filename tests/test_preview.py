"""A preview fits whatever the image shows, is a true small picture of it, and says how true."""

import io
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from jetson_cluster import preview
from jetson_cluster.preview import FORMATS, LEAST_BYTES, examine, make, suffix
from jetson_cluster.quality import measure

KINDS = FORMATS[1:]
RANDOM = np.random.RandomState(0)
NOISE = Image.fromarray(RANDOM.randint(0, 256, (600, 800, 3)).astype(np.uint8))
GRAINS = NOISE.crop((0, 0, 128, 96))  # noise that no reduction softens


def opened(made):
    return Image.open(io.BytesIO(made.content))


def pixels_of(made):
    return np.asarray(opened(made).convert("RGB")).astype(int)


def psnr_db(one, other):
    error = np.square(np.asarray(one).astype(float) - np.asarray(other)).mean()
    return 10 * np.log10(255 ** 2 / error)


@st.composite
def images(draw):
    """Noise, plains and ramps, of any mode and any shape."""
    width, height = draw(st.tuples(*[st.sampled_from([1, 2, 3, 17, 96, 129, 400, 3000])] * 2))
    mode = draw(st.sampled_from(["L", "RGB", "RGBA"]))
    random = np.random.RandomState(draw(st.integers(0, 2 ** 32 - 1)))
    bands = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    kind = draw(st.sampled_from(["noise", "plain", "coarse"]))
    if kind == "plain":
        return Image.new(mode, (width, height), tuple(random.randint(0, 256, 4).tolist())[
            :max(1, len(bands) and bands[0])])
    if kind == "coarse":
        cells = random.randint(0, 256, (5, 5) + bands).astype(np.uint8)
        return Image.fromarray(cells).resize((width, height), Image.NEAREST)
    small = random.randint(0, 256, (min(height, 300), min(width, 300)) + bands).astype(np.uint8)
    return Image.fromarray(small).resize((width, height), Image.NEAREST)


def held(made, image, max_bytes):
    assert 0 < len(made.content) <= max_bytes
    assert opened(made).size == (made.width, made.height)
    landscape = image.width >= image.height
    across, down = (128, 96) if landscape else (96, 128)
    assert 1 <= made.width <= min(across, image.width)
    assert 1 <= made.height <= min(down, image.height)
    assert 0 < made.psnr_db <= 99


@settings(deadline=None, max_examples=60)
@given(images(), st.sampled_from(KINDS), st.sampled_from([LEAST_BYTES, 1500, 2048, 8000]))
def test_a_preview_fits_whatever_the_image_shows(image, kind, max_bytes):
    held(make(image, kind, max_bytes), image, max_bytes)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (128, 96), (4000, 3000)])
def test_a_preview_of_noise_fits_in_any_shape(size, kind):
    image = GRAINS.resize(size, Image.NEAREST)
    held(make(image, kind, 2048), image, 2048)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size, expected", [
    ((1280, 960), (128, 96)), ((960, 1280), (96, 128)), ((500, 500), (96, 96)),
    ((100, 40), (100, 40)), ((30, 90), (30, 90)), ((5000, 1), (128, 1))])
def test_a_preview_fills_its_box_and_is_never_enlarged(size, expected, kind):
    made = make(Image.new("RGB", size, (180, 120, 70)), kind, 2048)
    assert (made.width, made.height) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_the_size_gives_way_where_the_quality_has_given_all(kind, monkeypatch):
    monkeypatch.setattr(preview, "LEAST_BYTES", 100)
    made = make(GRAINS, kind, 500)
    assert len(made.content) <= 500 and made.width < 128
    assert made.width / made.height == pytest.approx(128 / 96, rel=0.1)


@pytest.mark.parametrize("max_bytes", [1024, 1300, 2048])
@pytest.mark.parametrize("sigma, size", [(60, (192, 256)), (60, (240, 320)), (120, (240, 320))])
def test_a_webp_of_a_noisy_frame_uses_what_it_may(sigma, size, max_bytes):
    noisy = np.clip(np.random.RandomState(0).normal(128, sigma, size), 0, 255).astype(np.uint8)
    made = make(Image.fromarray(noisy), "webp", max_bytes)
    assert max_bytes / 2 <= len(made.content) <= max_bytes


def test_fewer_bytes_than_any_format_needs_are_refused():
    with pytest.raises(ValueError, match="1024"):
        make(NOISE, "webp", LEAST_BYTES - 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_preview_uses_what_it_may(kind, mars):
    tiles = [Image.open(str(path)) for path in sorted(mars.glob("cluster*.png"))[::6]]
    sizes = [len(make(tile, kind, 2048).content) for tile in tiles]
    assert np.mean(sizes) > 0.85 * 2048 and max(sizes) <= 2048


def test_a_webp_of_a_real_mars_picture_is_whole_and_clear(mars):
    for path in sorted(mars.glob("cluster*.png"))[::6]:
        tile = Image.open(str(path))
        made = make(tile, "webp", 2048)
        assert made.format == "webp" and opened(made).format == "WEBP"
        assert made.height == 96 and made.psnr_db > 26
        true = tile.convert("RGB").resize((made.width, made.height), Image.BICUBIC)
        assert psnr_db(pixels_of(made), true) == pytest.approx(made.psnr_db, abs=1.0)


def test_the_psnr_is_that_of_the_picture_as_it_was_reduced():
    made = make(GRAINS, "webp", 2048)
    assert made.psnr_db == pytest.approx(psnr_db(pixels_of(made), GRAINS), abs=0.01)


@pytest.mark.parametrize("kind, least_db", [("webp", 35), ("palette", 99)])
def test_a_plain_picture_is_all_but_exact(kind, least_db):
    assert make(Image.new("RGB", (300, 200), (180, 120, 70)), kind, 2048).psnr_db >= least_db


def drawing(colours):
    """Stripes of exact colours."""
    image = Image.new("RGB", (120, 90))
    pen = ImageDraw.Draw(image)
    for number, colour in enumerate(colours):
        pen.rectangle([number * 120 // len(colours), 0, 120, 90], fill=colour)
    return image


@pytest.mark.parametrize("count, most", [(8, 8), (16, 16)])
def test_a_palette_keeps_edges_crisp_and_colours_exact(count, most):
    colours = [tuple(colour) for colour in
               np.random.RandomState(count).randint(0, 256, (count, 3)).tolist()]
    image = drawing(colours)
    made = make(image, "palette", 2048)
    assert opened(made).format == "PNG" and opened(made).mode == "P"
    assert made.psnr_db == 99 and np.array_equal(pixels_of(made), np.asarray(image))
    assert len(opened(made).convert("RGB").getcolors()) == most


def test_a_palette_of_more_colours_is_taken_only_where_it_fits():
    hills = NOISE.crop((0, 0, 12, 9)).resize((128, 96), Image.BICUBIC)
    rich = make(hills, "palette", 65536)
    poor = make(hills, "palette", len(rich.content) - 1)
    assert [len(opened(made).convert("RGB").getcolors()) for made in (rich, poor)] == [16, 8]
    assert rich[2:4] == poor[2:4] == (128, 96) and rich.psnr_db > poor.psnr_db


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_transparent_becomes_black(kind):
    image = Image.new("RGBA", (200, 150), (255, 255, 255, 0))
    image.paste((200, 120, 60, 255), (100, 0, 200, 150))
    shown = pixels_of(make(image, kind, 2048))
    assert shown[:, :50].max() < 12
    assert np.abs(shown[:, -50:] - (200, 120, 60)).max() < 12


@pytest.mark.parametrize("kind", KINDS + ("jpeg",))
def test_profiles_and_comments_of_the_file_are_not_carried_along(kind, monkeypatch):
    if kind == "jpeg":
        monkeypatch.setattr(preview, "_lossy", lambda: "jpeg")
    image = Image.new("RGB", (90, 60), (180, 120, 70))
    image.info = {"icc_profile": b"x" * 5000, "exif": b"Exif\0\0" + b"x" * 5000,
                  "comment": b"x" * 5000, "xmp": b"x" * 5000, "dpi": (72, 72)}
    made = make(image, "palette" if kind == "palette" else "webp", 2048)
    assert made.format == kind and b"xxxx" not in made.content
    assert (made.width, made.height) == (90, 60) and "icc_profile" in image.info


def test_where_pillow_has_no_webp_it_is_a_jpeg_and_that_is_said_once(monkeypatch, caplog):
    monkeypatch.setattr(preview.features, "check", lambda name: name != "webp")
    preview._lossy.cache_clear()
    try:
        with caplog.at_level(logging.WARNING):
            for image in (NOISE, GRAINS, Image.new("L", (1, 1)), drawing([(9, 9, 9)])):
                made = make(image, "webp", 2048)
                held(made, image, 2048)
                assert made.format == "jpeg" and opened(made).format == "JPEG"
        assert [record.message.split(":")[0] for record in caplog.records] == ["NoWebP"]
        held(make(GRAINS, "webp", LEAST_BYTES), GRAINS, LEAST_BYTES)
    finally:
        preview._lossy.cache_clear()


def test_each_format_has_the_suffix_that_programs_know():
    assert [suffix(kind) for kind in KINDS + ("jpeg",)] == [".webp", ".png", ".jpg"]


def test_an_image_is_examined_for_both_at_once():
    measures, made = examine(NOISE, "palette", 2048)
    assert measures == measure(NOISE) and made == make(NOISE, "palette", 2048)
    assert examine(NOISE, "none", 2048) == (measures, None)


def test_making_a_preview_leaves_the_image_as_it_was():
    image = GRAINS.copy()
    before = image.tobytes()
    for kind in KINDS:
        make(image, kind, 2048)
    assert image.tobytes() == before and image.size == (128, 96)
