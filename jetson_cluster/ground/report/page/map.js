// The map: every image a dot, from near a picture. What pointer and keys do to it is in gestures.js.

const PICTURE = 56;  // CSS pixels that a picture on the map has at least; at most twice that
const PICTURE_MOST = 96;
const DOTS_A_PICTURE = 32;  // pictures are shown once one stands for no more images than this
const MARGIN = 36;
const CLOSEST = 64;  // times nearer than the whole map
const FINEST = 1024;  // parts of the map's side of which each has a picture of its own
const NAMES_MOST = 200;
const DIMMED = 0.62;  // how far what is not selected goes toward the background
const NEAR = 9;  // CSS pixels within which the pointer is on a dot

class ImageMap {
  constructor(archive, atlas, choices) {
    Object.assign(this, {archive, atlas, choices});
    this.canvas = byId("canvas");
    this.dots = new Dots(this.canvas);
    this.order = byTypicality(archive);
    this.anchors = archive.clusters.map((cluster) => this.anchor(cluster));
    this.rooms = new Map();  // parts of the map's side -> images that have room for a picture then
    this.pictures = [];  // as drawn: {image, left, top, width, height}
    this.marked = -1;  // an image that was asked for
    this.colourBy = "cluster";
    this.lasso = null;  // while it is drawn: [[x, y], ...] in CSS pixels
    this.view = null;  // {x, y, scale}: what is at the centre, CSS pixels a unit
    this.render = onceAFrame(() => this.draw());
    this.colour();
    choices.addEventListener("shown", () => { this.onShown(); this.render(); });
    this.onShown();
    choices.addEventListener("selected", this.render);
    darkness.addEventListener("change", () => this.colour());
    this.canvas.addEventListener("focus", this.render);
    this.canvas.addEventListener("blur", this.render);
    new ResizeObserver(() => this.resize()).observe(byId("stage"));
  }

  // What is kept of the filters' choice, until the next.
  onShown() {
    this.rooms.clear();
    this.prepareRooms(1);
    const {shown} = this.choices;
    this.named = this.archive.clusters
      .filter(({start, size}) => shown.subarray(start, start + size).includes(1))
      .sort((one, other) => other.size - one.size);
  }

  // ---- the view ------------------------------------------------------------------------------

  resize() {
    const box = byId("stage").getBoundingClientRect();
    if (!box.width || !box.height) return;  // another view is shown
    this.width = box.width;
    this.height = box.height;
    this.ratio = Math.min(devicePixelRatio, 2);
    this.canvas.width = Math.round(box.width * this.ratio);
    this.canvas.height = Math.round(box.height * this.ratio);
    if (this.pending) this.showImages(this.pending);
    else if (!this.view) this.fit();
    this.draw();  // at once: a canvas that was resized is empty
  }

  // The view in which these images fill the canvas.
  viewOf(images) {
    const [left, right] = extent(images.map((image) => this.archive.x[image]));
    const [top, bottom] = extent(images.map((image) => this.archive.y[image]));
    const scale = Math.min((this.width - 2 * MARGIN) / Math.max(right - left, 1e-3),
      (this.height - 2 * MARGIN) / Math.max(bottom - top, 1e-3));
    return {x: (left + right) / 2, y: (top + bottom) / 2, scale: Math.max(scale, 10)};
  }

  fit() {
    this.view = this.viewOf([...this.archive.x.keys()]);
    this.fitScale = this.view.scale;
    this.render();
  }

  // Moves to where these images are, with something around them; marks one if it is one.
  showImages(images) {
    this.pending = this.width ? null : images;  // the map was not shown yet
    if (this.pending) return;
    this.fit();
    const view = this.viewOf(images);
    view.scale = Math.min(view.scale * 0.8, this.fitScale * (images.length > 1 ? CLOSEST : 8));
    this.view = view;
    this.marked = images.length === 1 ? images[0] : -1;
    this.render();
  }

  // Zooms so that what is at x, y (CSS pixels) stays there.
  zoom(factor, x = this.width / 2, y = this.height / 2) {
    const {view} = this;
    const [placeX, placeY] = this.placeAt(x, y);
    view.scale = Math.min(this.fitScale * CLOSEST, Math.max(this.fitScale / 2, view.scale * factor));
    view.x = placeX - (x - this.width / 2) / view.scale;
    view.y = placeY - (y - this.height / 2) / view.scale;
    this.render();
  }

  move(dx, dy) {
    this.view.x = Math.min(1.2, Math.max(-0.2, this.view.x - dx / this.view.scale));
    this.view.y = Math.min(1.2, Math.max(-0.2, this.view.y - dy / this.view.scale));
    this.render();
  }

  placeAt(x, y) {
    return [this.view.x + (x - this.width / 2) / this.view.scale,
      this.view.y + (y - this.height / 2) / this.view.scale];
  }

  pointOf(image) {
    return [(this.archive.x[image] - this.view.x) * this.view.scale + this.width / 2,
      (this.archive.y[image] - this.view.y) * this.view.scale + this.height / 2];
  }

  // ---- drawing -------------------------------------------------------------------------------

  colour(by = this.colourBy) {
    this.colourBy = by;
    const style = getComputedStyle(document.body);
    const triple = (name) => style.getPropertyValue(name).split(" ").map(Number);
    this.background = triple("--map");
    this.colours = imageColours(this.archive, by);
    const [red, green, blue] = this.background;
    this.dimmed = this.colours.map((colour) => pixel([
      (colour & 255) + DIMMED * (red - (colour & 255)),
      (colour >> 8 & 255) + DIMMED * (green - (colour >> 8 & 255)),
      (colour >> 16 & 255) + DIMMED * (blue - (colour >> 16 & 255))].map(Math.round)));
    this.ghost = pixel(triple("--ghost"));
    this.ring = pixel(triple("--ring"));
    this.render();
  }

  draw() {
    if (!this.view || !this.canvas.width) return;
    const begun = performance.now();
    this.drawDots();
    const {context} = this.dots;
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    this.drawPictures(context);
    if (byId("with-names").checked) this.drawNames(context);
    this.drawMark(context);
    if (this.lasso) this.drawLasso(context);
    if (this.canvas.matches(":focus-visible")) this.drawCross(context);
    // For whoever drives the page by program, and to see how quick it is.
    this.canvas.dataset.pictures = this.pictures.length;
    this.canvas.dataset.view = [this.view.x, this.view.y, this.view.scale].join(" ");
    this.canvas.dataset.milliseconds = (performance.now() - begun).toFixed(1);
  }

  // Of a dot, in device pixels.
  radius() {
    const first = Math.sqrt(this.width * this.height / this.archive.count) * 0.16;
    const near = Math.max(1, this.view.scale / this.fitScale) ** 0.35;
    return Math.min(6, Math.min(3.5, Math.max(1.4, first)) * near) * this.ratio;
  }

  drawDots() {
    const {archive, dots, ratio, view, colours, dimmed} = this;
    const {shown, selected, selectedCount} = this.choices;
    const radius = this.radius();
    const [small, usual] = [dots.stamp(0.6 * radius), dots.stamp(radius)];
    const [edge, large] = [dots.stamp(1.25 * radius + 1.5 * ratio), dots.stamp(1.25 * radius)];
    const scale = view.scale * ratio;
    const left = this.width / 2 * ratio - view.x * scale;
    const top = this.height / 2 * ratio - view.y * scale;
    const each = (work) => {  // the most typical last, on top
      for (let at = archive.count - 1; at >= 0; at--) {
        const image = this.order[at];
        work(image, archive.x[image] * scale + left, archive.y[image] * scale + top);
      }
    };
    dots.begin(this.canvas.width, this.canvas.height, pixel(this.background));
    if (this.choices.shownCount < archive.count) {
      each((image, x, y) => { if (!shown[image]) dots.dot(x, y, small, this.ghost); });
    }
    const under = selectedCount ? dimmed : colours;
    each((image, x, y) => {
      if (shown[image] && !selected[image]) dots.dot(x, y, usual, under[image]);
    });
    if (selectedCount) {
      each((image, x, y) => { if (selected[image]) dots.dot(x, y, edge, this.ring); });
      each((image, x, y) => { if (selected[image]) dots.dot(x, y, large, colours[image]); });
    }
    dots.end();
  }

  // Which images have room for a picture, none if they would be too few to stand for all.
  withRoom(parts) {
    const enough = this.choices.shownCount / DOTS_A_PICTURE;
    if (!this.rooms.has(parts)) {
      const found = (parts + 1) ** 2 < enough ? []
        : imagesWithRoom(this.archive, this.order, parts, this.choices.shown);
      this.rooms.set(parts, found.length < enough ? [] : found);
    }
    return this.rooms.get(parts);
  }

  // Finds that out for every step of zoom while nothing else is to be done, so that no frame waits.
  prepareRooms(parts) {
    cancelIdle(this.preparing);
    this.preparing = whenIdle(() => {
      this.withRoom(parts);
      if (parts < FINEST) this.prepareRooms(2 * parts);
    });
  }

  drawPictures(context) {
    this.pictures = [];
    this.atlas.begin();
    if (!byId("with-pictures").checked) return;
    const {view} = this;
    // By steps of zoom, so that the same ones are shown while the map is moved.
    const parts = Math.min(FINEST, 2 ** Math.max(0, Math.floor(Math.log2(view.scale / PICTURE))));
    const size = Math.min(PICTURE_MOST, view.scale / parts * 0.92);
    context.imageSmoothingQuality = "high";
    context.lineWidth = 2;
    for (const image of this.withRoom(parts)) {
      const [x, y] = this.pointOf(image);
      if (x < -size || y < -size || x > this.width + size || y > this.height + size) continue;
      const cell = this.atlas.cell(image);
      const width = cell.width / this.archive.cell * size;
      const height = cell.height / this.archive.cell * size;
      const [left, top] = [x - width / 2, y - height / 2];
      if (!this.atlas.draw(context, image, left, top, width, height)) continue;
      const isSelected = this.choices.selected[image];
      const colour = isSelected ? this.ring : this.colours[image];
      context.globalAlpha = this.choices.selectedCount && !isSelected ? 0.5 : 1;
      context.strokeStyle = css([colour & 255, colour >> 8 & 255, colour >> 16 & 255]);
      context.lineWidth = isSelected ? 3 : 2;
      context.strokeRect(left, top, width, height);
      context.globalAlpha = 1;
      this.pictures.push({image, left, top, width, height});
    }
  }

  // Where a cluster's name stands: the median of its images, one stray island or two regardless.
  anchor({start, size}) {
    const middle = (values) => values.slice(start, start + size).sort()[size >> 1];
    return [middle(this.archive.x), middle(this.archive.y)];
  }

  drawNames(context) {
    context.font = "600 12px system-ui, sans-serif";
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineJoin = "round";
    const style = getComputedStyle(document.body);
    const taken = [];
    for (const cluster of this.named) {
      const [placeX, placeY] = this.anchors[cluster.number];
      const x = (placeX - this.view.x) * this.view.scale + this.width / 2;
      const y = (placeY - this.view.y) * this.view.scale + this.height / 2;
      if (x < 0 || y < 0 || x > this.width || y > this.height || taken.length > NAMES_MOST) continue;
      const name = cluster.label ? this.archive.clusterName(cluster.number) : String(cluster.number);
      const half = context.measureText(name).width / 2 + 6;
      if (taken.some((one) => Math.abs(one.x - x) < one.half + half && Math.abs(one.y - y) < 18)) {
        continue;
      }
      taken.push({x, y, half});
      context.lineWidth = 4;
      context.strokeStyle = css(this.background);
      context.strokeText(name, x, y);
      context.fillStyle = style.color;
      context.fillText(name, x, y);
    }
  }

  drawMark(context) {
    if (this.marked < 0) return;
    const [x, y] = this.pointOf(this.marked);
    context.strokeStyle = getComputedStyle(document.body).getPropertyValue("--accent");
    context.lineWidth = 3;
    context.beginPath();
    context.arc(x, y, this.pictures.some(({image}) => image === this.marked) ? PICTURE : 14, 0, 7);
    context.stroke();
  }

  drawLasso(context) {
    context.beginPath();
    for (const [x, y] of this.lasso) context.lineTo(x, y);
    context.closePath();
    context.fillStyle = "rgb(230 160 110 / 15%)";
    context.fill();
    context.strokeStyle = getComputedStyle(document.body).getPropertyValue("--accent");
    context.lineWidth = 2;
    context.stroke();
  }

  drawCross(context) {
    const [x, y] = [this.width / 2, this.height / 2];
    context.strokeStyle = getComputedStyle(document.body).getPropertyValue("--accent");
    context.lineWidth = 1.5;
    context.beginPath();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      context.moveTo(x + 5 * dx, y + 5 * dy);
      context.lineTo(x + 14 * dx, y + 14 * dy);
    }
    context.stroke();
  }

  // The image that is seen at a point, -1 if none.
  imageAt(x, y, near = NEAR) {
    const picture = this.pictures.findLast(({left, top, width, height}) =>
      x >= left && y >= top && x < left + width && y < top + height);
    if (picture) return picture.image;
    const [placeX, placeY] = this.placeAt(x, y);
    return imageNearest(this.archive, placeX, placeY, near / this.view.scale, this.choices.shown);
  }
}
