// Geometry of the map: which images lie in a lasso, which is nearest, which have room for a picture.
// Places are those of the archive, 0..1.

// Images in a closed polygon [[x, y], ...], of those the mask has: even-odd rule.
function imagesInside(archive, polygon, mask) {
  const xs = polygon.map(([x]) => x), ys = polygon.map(([, y]) => y);
  const [left, right] = extent(xs), [top, bottom] = extent(ys);
  const found = [];
  for (let image = 0; image < archive.count; image++) {
    const x = archive.x[image], y = archive.y[image];
    if (!mask[image] || x < left || x > right || y < top || y > bottom) continue;
    let inside = false;
    for (let at = 0, before = xs.length - 1; at < xs.length; before = at++) {
      if ((ys[at] > y) !== (ys[before] > y)
        && x < (xs[before] - xs[at]) * (y - ys[at]) / (ys[before] - ys[at]) + xs[at]) {
        inside = !inside;
      }
    }
    if (inside) found.push(image);
  }
  return found;
}

// The image of the mask nearest to a place, within a distance; -1 if there is none.
function imageNearest(archive, x, y, within, mask) {
  let best = -1, least = within * within;
  for (let image = 0; image < archive.count; image++) {
    const dx = archive.x[image] - x, dy = archive.y[image] - y;
    if (mask[image] && dx * dx + dy * dy <= least) {
      best = image;
      least = dx * dx + dy * dy;
    }
  }
  return best;
}

// The images of the mask that lie next to one, nearest first, itself at the head.
function imagesAround(archive, centre, most, mask) {
  const squared = (image) => (archive.x[image] - archive.x[centre]) ** 2
    + (archive.y[image] - archive.y[centre]) ** 2;
  const others = [];
  for (let image = 0; image < archive.count; image++) {
    if (mask[image] && image !== centre) others.push([squared(image), image]);
  }
  others.sort((one, other) => one[0] - other[0]);
  return [centre, ...others.slice(0, most - 1).map(([, image]) => image)];
}

// All images, the most typical of every cluster before the second of any.
function byTypicality(archive) {
  const share = new Float32Array(archive.count);
  for (const {start, size} of archive.clusters) {
    for (let at = 0; at < size; at++) share[start + at] = at / size;
  }
  return Uint32Array.from(share.keys()).sort((one, other) => share[one] - share[other]
    || one - other);
}

// Images of the mask no two of which are nearer than 1/`parts` along both axes: who comes first in
// `order` gets the room.
function imagesWithRoom(archive, order, parts, mask) {
  // Cells of that side, with a border of empty ones: at most one image each, so that only those in
  // the cells around can be too near.
  const width = parts + 3, cells = new Int32Array(width * width).fill(-1);
  const chosen = [];
  for (const image of order) {
    if (!mask[image]) continue;
    const x = archive.x[image] * parts, y = archive.y[image] * parts;
    const cell = (Math.floor(y) + 1) * width + Math.floor(x) + 1;
    let free = true;
    for (let row = -width; row <= width && free; row += width) {
      for (let at = cell + row - 1; at <= cell + row + 1 && free; at++) {
        const other = cells[at];
        free = other < 0 || Math.abs(archive.x[other] * parts - x) >= 1
          || Math.abs(archive.y[other] * parts - y) >= 1;
      }
    }
    if (!free) continue;
    cells[cell] = image;
    chosen.push(image);
  }
  return chosen;
}
