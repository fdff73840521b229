// Tens of thousands of round dots on a canvas, a few milliseconds for all of them: they are painted
// into its pixels directly, which needs no graphics card and looks the same everywhere.

class Dots {
  constructor(canvas) {
    this.context = canvas.getContext("2d", {alpha: false});
    this.stamps = new Map();
  }

  // A fresh picture of this size in device pixels, all of one colour.
  begin(width, height, background) {
    if (!this.picture || this.picture.width !== width || this.picture.height !== height) {
      this.picture = new ImageData(width, height);
      this.pixels = new Uint32Array(this.picture.data.buffer);
    }
    this.pixels.fill(background);
  }

  // How much of each pixel a disc of this radius covers: columns dx, dy, share (0..255).
  stamp(radius) {
    const key = Math.round(radius * 4);
    if (!this.stamps.has(key)) {
      const reach = Math.ceil(radius + 0.5), covered = [];
      for (let dy = -reach; dy <= reach; dy++) {
        for (let dx = -reach; dx <= reach; dx++) {
          const share = Math.min(1, Math.max(0, radius + 0.5 - Math.hypot(dx, dy)));
          if (share > 0.02) covered.push([dx, dy, Math.round(255 * share)]);
        }
      }
      this.stamps.set(key, {reach, covered: Int16Array.from(covered.flat())});
    }
    return this.stamps.get(key);
  }

  // One dot at a place in device pixels; colour as `pixel` in colours.js makes it.
  dot(x, y, {reach, covered}, colour) {
    const {width, height} = this.picture, {pixels} = this;
    x = Math.round(x);
    y = Math.round(y);
    if (x < -reach || y < -reach || x >= width + reach || y >= height + reach) return;
    const within = x >= reach && y >= reach && x < width - reach && y < height - reach;
    const red = colour & 255, green = colour >> 8 & 255, blue = colour >> 16 & 255;
    for (let at = 0; at < covered.length; at += 3) {
      const px = x + covered[at], py = y + covered[at + 1], share = covered[at + 2];
      if (!within && (px < 0 || py < 0 || px >= width || py >= height)) continue;
      const place = py * width + px;
      if (share === 255) {
        pixels[place] = colour;
        continue;
      }
      const under = pixels[place], rest = 255 - share;
      pixels[place] = (255 << 24
        | ((blue * share + (under >> 16 & 255) * rest) / 255) << 16
        | ((green * share + (under >> 8 & 255) * rest) / 255) << 8
        | (red * share + (under & 255) * rest) / 255) >>> 0;
    }
  }

  end() {
    this.context.putImageData(this.picture, 0, 0);
  }
}
