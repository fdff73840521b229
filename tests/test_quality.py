"""Spoilt frames are found and named, good ones are left alone, and noise hides neither."""

import io
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter

from jetson_cluster.quality import (
    LIMITS, Measures, Thresholds, disorder, factors, judge, measure, pack, unpack)

DEFAULT = Thresholds()


def terrain(seed=0, size=(320, 240)):
    """A grey picture with detail at every scale, as ground has: RGB, 40 to 210 or so."""
    random, (width, height) = np.random.RandomState(seed), size
    picture = np.zeros((height, width))
    for cells in (4, 8, 16, 32, 64, 128, 256):
        field = random.standard_normal((cells, cells)).astype(np.float32)
        picture += np.asarray(Image.fromarray(field).resize(size, Image.BICUBIC)) * cells ** -0.5
    picture = 125 + 35 * picture / picture.std()
    return Image.fromarray(np.clip(picture, 30, 225).astype(np.uint8)).convert("RGB")


def jpeg(image):
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=75)
    return Image.open(stream)


def exposed(times):
    return lambda image: image.point([min(255, int(level * times)) for level in range(256)] * 3)


def blurred(radius):
    return lambda image: image.filter(ImageFilter.GaussianBlur(radius))


def speckled(share, seed=3):
    """Hot and dead pixels, half of each."""
    def spoil(image):
        pixels, random = np.array(image), np.random.RandomState(seed)
        bad = random.random_sample(pixels.shape[:2]) < share
        pixels[bad] = random.choice([0, 255], (bad.sum(), 1))
        return Image.fromarray(pixels)

    return spoil


def torn(share, level=0, thick=1, seed=4):
    """Lines that never arrived, none of them the first or the last."""
    def spoil(image):
        pixels = np.array(image)
        bands = np.random.RandomState(seed).permutation(np.arange(1, len(pixels) // thick - 1))
        for band in bands[:int(round(share * len(pixels) / thick))]:
            pixels[band * thick:(band + 1) * thick] = level
        return Image.fromarray(pixels)

    return spoil


def plain(level, spread=2):
    def spoil(image):
        noise = np.random.RandomState(5).standard_normal((image.height, image.width, 3))
        return Image.fromarray(np.clip(level + spread * noise, 0, 255).astype(np.uint8))

    return spoil


def static(mode, seed=7):
    """Random bytes instead of a picture."""
    def spoil(image):
        shape = (image.height, image.width) + ((3,) if mode == "RGB" else ())
        drawn = np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8)
        return Image.fromarray(drawn).convert("RGB")

    return spoil


def as_it_is(image):
    return image


@pytest.fixture(scope="module")
def tiles(mars):
    return [Image.open(str(path)).convert("RGB") for path in sorted(mars.glob("cluster*.png"))]


# ---- good frames -----------------------------------------------------------------------------


def brighter(image):
    """Bright sand: nothing below a third of white."""
    return image.point([min(255, int(90 + 0.8 * level)) for level in range(256)] * 3)


def under_a_night_sky(image):
    """Four fifths of it black sky with a little noise."""
    pixels = np.array(image)
    sky = pixels[:len(pixels) * 4 // 5]
    sky[:] = np.random.RandomState(6).randint(0, 6, sky.shape[:2])[:, :, None]
    return Image.fromarray(pixels)


def in_shadow(image):
    """Two thirds of it in a dark shadow with a sharp edge."""
    pixels = np.array(image)
    down, across = np.mgrid[:pixels.shape[0], :pixels.shape[1]]
    pixels[down / pixels.shape[0] + across / pixels.shape[1] < 1.2] //= 8
    return Image.fromarray(pixels)


def under_a_white_sky(image):
    pixels = np.array(image)
    pixels[:len(pixels) * 2 // 5] = 255
    return Image.fromarray(pixels)


GOOD = [as_it_is, brighter, under_a_night_sky, in_shadow, under_a_white_sky]


@pytest.mark.parametrize("change", GOOD)
@pytest.mark.parametrize("seed", range(5))
def test_a_good_frame_is_not_discounted(change, seed):
    image = change(terrain(seed))
    for shown in (image, jpeg(image), image.convert("L"), image.convert("RGBA")):
        assert judge(measure(shown), DEFAULT) == (1.0, "")


@pytest.mark.parametrize("change", GOOD)
def test_no_real_mars_picture_is_discounted(change, tiles):
    for tile in tiles:
        image = change(tile)
        for shown in (image, jpeg(image)):
            assert judge(measure(shown), DEFAULT) == (1.0, "")


# ---- spoilt frames ---------------------------------------------------------------------------

SPOILT = [
    (exposed(4), "over-exposed: ", "of it is white"),
    (exposed(1 / 8), "under-exposed: ", "of it is black"),
    (plain(128), "", "of 255 levels"),
    (plain(128, 0), "blank: its greys span 0 of 255 levels", ""),
    (plain(0), "under-exposed: 100 % of it is black", ""),
    (plain(255), "over-exposed: ", "of it is white"),
    (speckled(0.05), "hot pixels: ", " % of it"),
    (torn(0.12), "", " % of its lines are missing"),
    (torn(0.12, 255), "", " % of its lines are missing"),
    (torn(0.12, 0, 4), "", " % of its lines are missing"),
    (static("RGB"), "static: its pixels differ as if drawn by lot", ""),
    (static("L"), "", ""),
]


@pytest.mark.parametrize("spoil, begins, ends", SPOILT + [(blurred(6), "blurred: ", "")])
@pytest.mark.parametrize("keep", [as_it_is, jpeg])
def test_a_spoilt_frame_is_discounted_and_told_why(spoil, begins, ends, keep):
    for seed in range(5):
        verdict = judge(measure(keep(spoil(terrain(seed)))), DEFAULT)
        assert verdict.factor < 0.8
        assert verdict.reason.startswith(begins) and verdict.reason.endswith(ends)


@pytest.mark.parametrize("spoil, begins, ends", SPOILT + [(blurred(2), "blurred: ", "")])
def test_real_mars_pictures_are_discounted_once_spoilt(spoil, begins, ends, tiles):
    verdicts = [judge(measure(jpeg(spoil(tile))), DEFAULT) for tile in tiles]
    found = [verdict for verdict in verdicts if verdict.factor < 1
             and verdict.reason.startswith(begins) and verdict.reason.endswith(ends)]
    assert len(found) >= 0.95 * len(tiles)


@pytest.mark.parametrize("spoil, strengths", [
    (exposed, (1, 2.5, 3, 4, 6)), (exposed, (1, 1 / 4, 1 / 5, 1 / 6, 1 / 8)),
    (blurred, (0, 3, 4, 5, 8)), (speckled, (0, 0.02, 0.04, 0.06, 0.15)),
    (torn, (0, 0.03, 0.1, 0.2, 0.4))])
def test_the_factor_falls_with_the_fault_down_to_the_least(spoil, strengths):
    falling = [judge(measure(spoil(strength)(terrain(1))), DEFAULT).factor
               for strength in strengths]
    assert falling == sorted(falling, reverse=True)
    assert falling[0] == 1 and falling[-1] == pytest.approx(DEFAULT.least)


@pytest.mark.parametrize("share, said", [(0.62, "over-exposed: 62 % of it is white"),
                                         (0.604, "over-exposed: 60 % of it is white")])
def test_a_reason_gives_the_number(share, said):
    assert judge(Measures(0, share, 1, 1, 0, 0), DEFAULT).reason == said
    assert judge(Measures(0, 0, 1, 1, 0.0244, 0), DEFAULT).reason == "hot pixels: 2.4 % of it"
    assert judge(Measures(0, 0, 1, 0.3, 0, 0), DEFAULT).reason == "blurred: its sharpness is 0.30"
    assert judge(Measures(0, 0, 0.03, 1, 0, 0), DEFAULT).reason == (
        "little contrast: its greys span 8 of 255 levels")


# ---- noise hides nothing ---------------------------------------------------------------------


def test_the_share_of_hot_pixels_is_found_wherever_they_are():
    for image in (terrain(2), plain(10)(terrain(2)), plain(240)(terrain(2))):
        assert measure(speckled(0.02)(image)).noise == pytest.approx(0.02, rel=0.6)


def test_one_hot_pixel_beside_another_or_at_the_edge_is_found():
    pixels = np.full((20, 20), 120, np.uint8)
    pixels[5, 5:7] = 255
    pixels[0, 10] = pixels[10, 0] = 0
    assert measure(Image.fromarray(pixels)).noise == 4 / 400


@pytest.mark.parametrize("size", [(24, 60), (128, 96), (640, 480), (2000, 1500)])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("keep", [as_it_is, jpeg])
def test_static_of_any_size_is_worth_the_least(size, mode, keep):
    for seed in range(5):
        image = keep(static(mode, seed)(Image.new("RGB", size)))
        assert judge(measure(image), DEFAULT).factor == pytest.approx(DEFAULT.least)


def test_what_an_older_catalog_does_not_know_is_sound():
    assert unpack(pack(Measures(0, 0, 1, 1, 0, 0, 1))[:12]).static == 0


def test_grit_in_the_sun_is_no_noise(tiles):
    """Real ground with its contrast stretched to both ends, and half of it over-exposed."""
    for tile in tiles:
        levels = np.asarray(tile).astype(float)
        low, high = np.percentile(levels, [1, 99])
        stretched = np.clip((levels - low) / (high - low) * 255, 0, 255).astype(np.uint8)
        for image in (Image.fromarray(stretched), exposed(1.5)(tile)):
            measures = measure(image)
            assert measures.noise < DEFAULT.noise_fine
            assert measures.static < 0.9 * DEFAULT.static_fine


@pytest.mark.parametrize("spoil", [speckled(0.01), torn(0.05), torn(0.05, 255)])
def test_noise_counts_neither_as_sharpness_nor_as_exposure(spoil):
    for change in (blurred(6), exposed(1 / 8), exposed(4)):
        image = change(terrain(3))
        clean, noisy = measure(image), measure(spoil(image))
        assert noisy.dark == pytest.approx(clean.dark, abs=0.002)
        assert noisy.bright == pytest.approx(clean.bright, abs=0.06)
        assert judge(noisy, DEFAULT).reason[:8] == judge(clean, DEFAULT).reason[:8]
    image = blurred(6)(terrain(3))
    assert measure(spoil(image))[:4] == pytest.approx(measure(image)[:4], abs=0.01)


@pytest.mark.parametrize("thick", [1, 3])
@pytest.mark.parametrize("level", [0, 255])
def test_the_share_of_dead_lines_is_found_in_either_direction(level, thick):
    image = torn(0.1, level, thick)(terrain(4))
    assert measure(image).dead_lines == pytest.approx(0.1, abs=0.015)
    turned = image.transpose(Image.ROTATE_90)
    assert measure(turned).dead_lines == measure(image).dead_lines


def test_white_lines_in_a_black_frame_are_the_dead_ones_not_the_rest():
    for level, lines in ((20, 255), (250, 0)):
        image = torn(0.05, lines)(plain(level)(terrain(5)))
        assert measure(image).dead_lines == pytest.approx(0.05, abs=0.01)


def test_a_sky_that_is_black_or_white_throughout_is_no_band_of_dead_lines():
    for level in (0, 255):
        pixels = np.array(terrain(5))
        pixels[:80] = level
        assert measure(Image.fromarray(pixels)).dead_lines == 0


# ---- what is missing -------------------------------------------------------------------------


def test_whole_black_lines_at_the_edges_are_left_out():
    image = terrain(6)
    framed = Image.new("RGB", (440, 300))
    framed.paste(image, (50, 20))
    assert measure(framed)[:2] == measure(image)[:2]
    assert measure(framed) == pytest.approx(measure(image), abs=0.02)


def test_a_black_frame_is_not_judged_by_a_speck_of_noise():
    pixels = np.zeros((200, 300), np.uint8)
    pixels[100:103, 150:153] = 255
    assert judge(measure(Image.fromarray(pixels)), DEFAULT).reason == (
        "under-exposed: 100 % of it is black")


@pytest.mark.parametrize("hidden", [0, 127])
def test_what_is_transparent_does_not_count(hidden):
    opaque = blurred(6)(terrain(7)).convert("RGBA")
    wide = Image.new("RGBA", (640, 240), (255, 255, 255, hidden))
    wide.paste(opaque, (320, 0))
    assert measure(wide) == pytest.approx(measure(opaque), abs=0.04)


def test_an_image_transparent_throughout_is_blank():
    verdict = judge(measure(Image.new("RGBA", (30, 20), (200, 100, 50, 0))), DEFAULT)
    assert verdict == (pytest.approx(DEFAULT.least), "blank: its greys span 0 of 255 levels")


# ---- any image -------------------------------------------------------------------------------


@settings(deadline=None, max_examples=150)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(["L", "RGB", "RGBA"]),
       st.integers(0, 2 ** 32 - 1), st.sampled_from([(0, 256), (0, 9), (250, 256), (100, 101)]))
def test_any_image_has_measures_of_zero_to_one_that_do_not_depend_on_its_turn(
        width, height, mode, seed, levels):
    shape = (height, width) + ({"L": (), "RGB": (3,), "RGBA": (4,)}[mode])
    pixels = np.random.RandomState(seed).randint(levels[0], levels[1], shape).astype(np.uint8)
    image = Image.fromarray(pixels)
    measures = measure(image)
    assert all(isinstance(value, float) and 0 <= value <= 1 for value in measures)
    for turn in (Image.ROTATE_90, Image.TRANSPOSE, Image.FLIP_LEFT_RIGHT):
        turned = measure(image.transpose(turn))
        assert turned[:-1] == pytest.approx(measures[:-1], abs=1e-4)
        assert turned.static == pytest.approx(measures.static, abs=0.03)  # other areas


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 5000), (7000, 2), (5000, 5000)])
def test_images_of_every_shape_are_measured_in_bounded_memory(size):
    image = Image.new("L", size, 90)
    tracemalloc.start()
    try:
        measures = measure(image)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert measures == (0, 0, 0, 1, 0, 0, 0)
    assert peak < 10e6


def test_a_jpeg_decoded_at_reduced_size_is_as_sharp_as_the_whole_picture():
    for radius in (0, 6, 12):
        image = blurred(radius)(terrain(8, (1600, 1200)))
        reduced = jpeg(image)
        reduced.draft(None, (448, 448))
        assert reduced.size == (800, 600)
        whole = measure(image)
        for smaller in (reduced, image.resize((320, 240), Image.BOX)):
            assert measure(smaller).sharpness == pytest.approx(whole.sharpness, abs=0.04)


def test_hot_pixels_of_a_large_image_are_seen():
    noisy = speckled(0.05)(terrain(9, (2000, 1500)))
    assert measure(noisy).noise == pytest.approx(0.05, rel=0.3)


# ---- judging ---------------------------------------------------------------------------------


@st.composite
def thresholds(draw):
    """Any that are in order."""
    values = {"least": draw(st.floats(0.001, 1))}
    for name in Measures._fields:
        pair = sorted(draw(st.tuples(*[st.integers(0, 20).map(lambda n: n / 20)] * 2)))
        if name in ("contrast", "sharpness"):
            pair.reverse()
        values[name + "_fine"], values[name + "_useless"] = pair
    return Thresholds(**values)


SHARES = st.integers(0, 1024).map(lambda number: number / 1024)


@settings(deadline=None)
@given(st.lists(st.tuples(*[SHARES] * 7), max_size=20), thresholds())
def test_many_are_judged_as_each_one_is(rows, limits):
    assert disorder(limits) == []
    several = factors(np.array(rows, np.float32).reshape(-1, 7), limits)
    assert several.dtype == np.float32 and several.shape == (len(rows),)
    for row, factor in zip(rows, several):
        verdict = judge(Measures(*row), limits)
        assert verdict.factor == factor
        assert np.float32(limits.least) <= verdict.factor <= 1
        assert bool(verdict.reason) == (verdict.factor < 1)


@given(st.tuples(*[SHARES] * 7), st.integers(0, 6), st.integers(1, 9).map(lambda n: n / 10))
def test_the_worst_fault_decides_alone(values, place, worse):
    """To make any other fault as bad as the worst one changes nothing."""
    alone = []
    for name, value in zip(Measures._fields, values):
        others = Measures(0, 0, 1, 1, 0, 0)._replace(**{name: value})
        alone.append(judge(others, DEFAULT).factor)
    assert judge(Measures(*values), DEFAULT).factor == min(alone)


@pytest.mark.parametrize("name", Measures._fields)
def test_a_pair_of_equal_numbers_is_a_step(name):
    good = Measures(0, 0, 1, 1, 0, 0)
    limits = DEFAULT._replace(**{name + "_fine": 0.5, name + "_useless": 0.5})
    worse = 0.49 if name in ("contrast", "sharpness") else 0.51
    assert judge(good._replace(**{name: 0.5}), limits).factor == 1
    assert judge(good._replace(**{name: worse}), limits).factor == pytest.approx(0.1)


@pytest.mark.parametrize("name", Measures._fields)
def test_a_pair_at_the_end_of_its_range_switches_a_fault_off(name):
    end = 0.0 if name in ("contrast", "sharpness") else 1.0
    limits = DEFAULT._replace(**{name + "_fine": end, name + "_useless": end})
    spoilt = Measures(0, 0, 1, 1, 0, 0)._replace(**{name: end})
    assert judge(spoilt, DEFAULT).factor < 1
    assert judge(spoilt, limits) == (1.0, "")


def test_with_a_least_factor_of_one_quality_does_not_matter():
    assert judge(Measures(1, 1, 0, 0, 1, 1, 1), DEFAULT._replace(least=1.0)) == (1.0, "")


# ---- in a policy -----------------------------------------------------------------------------


def test_every_threshold_has_a_range_and_its_default_lies_in_it():
    assert set(LIMITS) == set(Thresholds._fields)
    assert all(LIMITS[name][0] <= getattr(DEFAULT, name) <= LIMITS[name][1] for name in LIMITS)
    assert disorder(DEFAULT) == []


def test_a_pair_the_wrong_way_round_is_named():
    assert disorder(DEFAULT._replace(bright_fine=0.95, sharpness_useless=0.5)) == [
        "bright_fine is 0.95: it must not be greater than bright_useless, 0.9",
        "sharpness_fine is 0.37: it must not be less than sharpness_useless, 0.5"]


# ---- in the catalog --------------------------------------------------------------------------


@given(st.tuples(*[st.floats(0, 1)] * 7))
def test_measures_come_back_from_the_catalog(values):
    packed = pack(Measures(*values))
    assert len(packed) == 14
    again = unpack(packed)
    assert again == pytest.approx(values, abs=0.0005) and isinstance(again, Measures)
    assert all(type(value) is float for value in again)
    assert pack(again) == packed
