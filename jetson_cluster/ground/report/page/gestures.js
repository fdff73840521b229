// What pointer and keys do to the map: move it, zoom it, draw a lasso, choose an image.

const STEP = 60;  // CSS pixels that an arrow key moves the map
const CLICK = 4;  // CSS pixels within which a press is no dragging
const AROUND = 500;  // images that the large view can go on to, the nearest first

class Gestures {
  // `open(images, at)` shows one of a list of images large.
  constructor(map, open) {
    Object.assign(this, {map, open});
    this.canvas = map.canvas;
    this.hover = byId("hover");
    this.lassoing = false;  // whether dragging draws the lasso
    this.pointers = new Map();
    this.moved = false;  // whether what is pressed was dragged
    this.listen();
  }

  setLasso(on) {
    this.lassoing = on;
    byId("tool-lasso").setAttribute("aria-pressed", String(on));
    byId("tool-move").setAttribute("aria-pressed", String(!on));
    this.canvas.classList.toggle("lasso", on);
  }

  listen() {
    const {canvas} = this;
    const on = (name, work) => canvas.addEventListener(name, (event) => work.call(this, event));
    on("pointerdown", this.onDown);
    on("pointermove", this.onMove);
    on("pointerup", this.onUp);
    on("pointercancel", this.onCancel);
    on("pointerleave", () => { this.hover.hidden = true; });
    on("keydown", this.onKey);
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      // Lines, where a mouse tells them instead of pixels.
      const pixels = event.deltaY * (event.deltaMode ? 30 : 1);
      this.map.zoom(Math.exp(-Math.max(-300, Math.min(300, pixels)) * 0.0015), event.offsetX,
        event.offsetY);
    }, {passive: false});
  }

  onDown(event) {
    if (event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, event);
    this.moved = this.pointers.size > 1;  // a second finger: no click
    if (this.pointers.size > 1) this.map.lasso = null;
    else if (this.lassoing || event.shiftKey) this.map.lasso = [[event.offsetX, event.offsetY]];
    this.hover.hidden = true;
  }

  onMove(event) {
    const before = this.pointers.get(event.pointerId);
    if (!before) return this.drawHover(event);
    if (!this.moved && Math.hypot(event.offsetX - before.offsetX,
      event.offsetY - before.offsetY) < CLICK) return;
    this.moved = true;
    if (this.map.lasso) {
      this.map.lasso.push([event.offsetX, event.offsetY]);
      return this.map.render();
    }
    const others = [...this.pointers.values()].filter((one) => one.pointerId !== event.pointerId);
    this.pointers.set(event.pointerId, event);
    this.map.move((event.offsetX - before.offsetX) / this.pointers.size,
      (event.offsetY - before.offsetY) / this.pointers.size);
    for (const other of others) {  // two fingers: apart is nearer
      const apart = (one) => Math.hypot(one.offsetX - other.offsetX, one.offsetY - other.offsetY);
      this.map.zoom(apart(event) / Math.max(1, apart(before)),
        (event.offsetX + other.offsetX) / 2, (event.offsetY + other.offsetY) / 2);
    }
  }

  onUp(event) {
    if (!this.pointers.delete(event.pointerId)) return;
    const lasso = this.map.lasso;
    this.map.lasso = null;
    if (this.moved && lasso) {
      const polygon = lasso.map(([x, y]) => this.map.placeAt(x, y));
      const inside = imagesInside(this.map.archive, polygon, this.map.choices.shown);
      this.map.choices.select(inside, event.altKey ? "remove" : event.shiftKey ? "add" : "replace");
    } else if (!this.moved) {
      this.map.marked = -1;
      const image = this.map.imageAt(event.offsetX, event.offsetY);
      if (image >= 0) this.choose(image, event.ctrlKey || event.metaKey || Boolean(lasso));
    }
    this.map.render();
  }

  onCancel(event) {
    this.pointers.delete(event.pointerId);
    this.map.lasso = null;
    this.map.render();
  }

  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const moves = {
      ArrowLeft: [STEP, 0], ArrowRight: [-STEP, 0], ArrowUp: [0, STEP], ArrowDown: [0, -STEP],
    };
    if (moves[event.key]) this.map.move(...moves[event.key]);
    else if (event.key === "+" || event.key === "=") this.map.zoom(1.3);
    else if (event.key === "-") this.map.zoom(1 / 1.3);
    else if (event.key === "0") this.map.fit();
    else if (event.key === "Enter" || event.key === " ") {
      const image = this.map.imageAt(this.map.width / 2, this.map.height / 2, STEP);
      if (image >= 0) this.choose(image, event.key === " ");
    } else return;
    event.preventDefault();
  }

  choose(image, select) {
    if (select) this.map.choices.toggle(image);
    else this.open(imagesAround(this.map.archive, image, AROUND, this.map.choices.shown), 0);
  }

  drawHover(event) {
    const image = this.map.imageAt(event.offsetX, event.offsetY);
    this.hover.hidden = image < 0;
    this.canvas.classList.toggle("on-image", image >= 0);
    if (image < 0) return;
    const {map, hover} = this, {archive} = map;
    map.atlas.show(hover.querySelector(".thumb"), image, archive.cell);
    hover.querySelector("p").textContent = `${legible(archive.names[image])}\n${
      archive.clusterName(archive.cluster[image])}\nnovelty ${archive.novelty[image].toFixed(2)}`;
    const {width, height} = hover.getBoundingClientRect();
    const left = event.offsetX + 16 + width > map.width ? event.offsetX - 16 - width
      : event.offsetX + 16;
    hover.style.left = `${Math.max(4, left)}px`;
    hover.style.top = `${Math.max(4, Math.min(event.offsetY + 16, map.height - height - 4))}px`;
  }
}
