// Colours of images on the map: by cluster, novelty or time, for a dark and for a light page.

const darkness = matchMedia("(prefers-color-scheme: dark)");

// OKLCH to sRGB, as in CSS Color 4: equal steps of lightness look equal. Returns [r, g, b], 0..255.
function oklch(lightness, chroma, hue) {
  const a = chroma * Math.cos(hue * Math.PI / 180);
  const b = chroma * Math.sin(hue * Math.PI / 180);
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3;
  return [
    4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s,
    -1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s,
    -0.0041960863 * l - 0.7034186147 * m + 1.7076147010 * s,
  ].map((linear) => {
    const value = linear <= 0.0031308 ? 12.92 * linear : 1.055 * linear ** (1 / 2.4) - 0.055;
    return Math.round(255 * Math.min(1, Math.max(0, value)));
  });
}

// By the golden angle, so that any number of clusters in a row differ; in three lightnesses, for
// hues alone are told apart only to about a dozen.
function clusterColour(number) {
  const lightness = (darkness.matches ? [0.76, 0.66, 0.86] : [0.58, 0.48, 0.66])[number % 3];
  return oklch(lightness, 0.13, 30 + number * 137.508);
}

// From least (0) to most (1), towards what stands out from the page.
const rampColour = (share) => darkness.matches
  ? oklch(0.42 + 0.45 * share, 0.05 + 0.1 * share, 265 - 200 * share)
  : oklch(0.8 - 0.38 * share, 0.05 + 0.1 * share, 265 - 230 * share);

const unknownColour = () => darkness.matches ? [90, 90, 98] : [176, 174, 170];

const css = ([red, green, blue]) => `rgb(${red} ${green} ${blue})`;

// As a canvas keeps pixels: 0xAABBGGRR.
const pixel = ([red, green, blue]) => (255 << 24 | blue << 16 | green << 8 | red) >>> 0;

// Uint32 by image, as `pixel` makes them.
function imageColours(archive, by) {
  const colours = new Uint32Array(archive.count);
  if (by === "cluster") {
    for (const {number, start, size} of archive.clusters) {
      colours.fill(pixel(clusterColour(number)), start, start + size);
    }
    return colours;
  }
  const values = by === "time" ? archive.captured : archive.novelty;
  const [low, high] = by === "time" ? extent(values) : [0, 1];
  for (let image = 0; image < archive.count; image++) {
    const share = high > low ? (values[image] - low) / (high - low) : 1;
    colours[image] = pixel(Number.isFinite(share) ? rampColour(share) : unknownColour());
  }
  return colours;
}

// Least and greatest of what is known of a column; [0, 0] if nothing is.
function extent(values) {
  let low = Infinity, high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low <= high ? [low, high] : [0, 0];
}
