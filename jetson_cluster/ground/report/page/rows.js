// Rows of pictures under headings, any number of them: only those in sight are in the document.

const TILE_GAP = 6;
const HEAD_HEIGHT = 46;
const BEYOND = 300;  // pixels above and below what is in sight that are kept ready

class Rows {
  // `open(images, at)` shows one of a list of images large.
  constructor(scroller, archive, atlas, choices, open, tile) {
    Object.assign(this, {scroller, archive, atlas, choices, open, tile});
    this.list = make("div", {class: "rows", role: "listbox", tabindex: 0,
      "aria-multiselectable": "true", "aria-label": "Pictures"});
    this.id = `${scroller.id}-tile`;
    scroller.append(this.list);
    this.images = [];  // of all sections, one after the other
    this.sections = [];
    this.lines = [];
    this.drawn = new Map();  // line -> element
    this.active = 0;  // which of `images` the keys act on
    this.render = onceAFrame(() => this.draw());
    scroller.addEventListener("scroll", this.render);
    new ResizeObserver(() => this.layOut()).observe(scroller);
    this.list.addEventListener("click", (event) => this.onClick(event));
    this.list.addEventListener("keydown", (event) => this.onKey(event));
    this.list.addEventListener("focus", () => this.markActive());
    choices.addEventListener("selected", () => this.markSelected());
  }

  // sections: [{title, note, images, action: {text, run} or nothing}]
  show(sections) {
    this.sections = sections;
    this.images = sections.flatMap((section) => section.images);
    this.active = 0;
    this.list.classList.toggle("empty", !this.images.length);
    this.scroller.scrollTop = 0;
    this.layOut();
  }

  // How many pictures there are in a row.
  get columns() {
    return Math.max(1, Math.floor(this.list.clientWidth / (this.tile + TILE_GAP)));
  }

  // Which line stands where, for the width there is.
  layOut() {
    const step = this.tile + TILE_GAP, {columns} = this;
    this.lines = [];
    let top = 0, first = 0;
    for (const section of this.sections) {
      if (section.title) {
        this.lines.push({top, height: HEAD_HEIGHT, section});
        top += HEAD_HEIGHT;
      }
      const end = first + section.images.length;
      for (; first < end; first = Math.min(first + columns, end)) {
        this.lines.push({top, height: step, first, stop: Math.min(first + columns, end)});
        top += step;
      }
    }
    this.list.style.height = `${top}px`;
    for (const element of this.drawn.values()) element.remove();
    this.drawn.clear();
    this.draw();
  }

  draw() {
    const from = this.scroller.scrollTop - BEYOND;
    const to = this.scroller.scrollTop + this.scroller.clientHeight + BEYOND;
    for (const [line, element] of this.drawn) {
      if (line.top + line.height < from || line.top > to) {
        element.remove();
        this.drawn.delete(line);
      }
    }
    for (let at = this.firstLine(from); at < this.lines.length && this.lines[at].top <= to; at++) {
      const line = this.lines[at];
      if (this.drawn.has(line)) continue;
      const element = line.section ? this.head(line.section) : this.row(line);
      element.style.top = `${line.top}px`;
      this.drawn.set(line, element);
      this.list.append(element);
    }
    this.markSelected();
    this.markActive();
  }

  // The first line that reaches below this height, by halves.
  firstLine(height) {
    let low = 0, high = this.lines.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.lines[middle].top + this.lines[middle].height < height) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  head({title, note, action}) {
    const element = make("div", {class: "head", role: "presentation"},
      make("h3", {}, title), make("span", {class: "note"}, note || ""));
    if (action) {
      element.append(make("button", {type: "button", onclick: action.run}, action.text));
    }
    return element;
  }

  row({first, stop}) {
    const element = make("div", {class: "row", role: "presentation"});
    for (let at = first; at < stop; at++) {
      const image = this.images[at];
      const thumb = make("span", {class: "thumb"});
      this.atlas.show(thumb, image, this.tile);
      const name = `${legible(this.archive.names[image])}, `
        + this.archive.clusterName(this.archive.cluster[image])
        + (this.archive.reasons[image] ? `, ${this.archive.reasons[image]}` : "");
      const tile = make("div", {class: "tile", role: "option", id: `${this.id}-${at}`,
        "aria-setsize": this.images.length, "aria-posinset": at + 1, "aria-label": name,
        title: name}, thumb);
      tile.dataset.at = at;
      tile.dataset.image = image;
      tile.style.width = tile.style.height = `${this.tile}px`;
      tile.style.setProperty("--cluster", css(clusterColour(this.archive.cluster[image])));
      element.append(tile);
    }
    return element;
  }

  tiles() {
    return this.list.querySelectorAll(".tile");
  }

  markSelected() {
    for (const tile of this.tiles()) {
      tile.setAttribute("aria-selected", String(this.choices.selected[tile.dataset.image] === 1));
    }
  }

  markActive() {
    for (const tile of this.tiles()) {
      tile.classList.toggle("active", Number(tile.dataset.at) === this.active);
    }
    this.list.setAttribute("aria-activedescendant", `${this.id}-${this.active}`);
  }

  onClick(event) {
    const tile = event.target.closest(".tile");
    if (!tile) return;
    const at = Number(tile.dataset.at);
    const [before, image] = [this.active, this.images[at]];
    this.active = at;
    this.markActive();
    if (event.shiftKey) {
      const [first, last] = before < at ? [before, at] : [at, before];
      this.choices.select(this.images.slice(first, last + 1), "add");
    } else if (event.ctrlKey || event.metaKey) {
      this.choices.toggle(image);
    } else {
      this.open(this.images, at);
    }
  }

  onKey(event) {
    if (event.target !== this.list || event.ctrlKey || event.metaKey || event.altKey) return;
    const moves = {ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity};
    if (event.key in moves) {
      this.moveTo(Math.min(this.images.length - 1, Math.max(0, this.active + moves[event.key])));
    } else if (event.key === "ArrowUp" || event.key === "ArrowDown") {
      this.moveTo(this.above(event.key === "ArrowUp" ? -1 : 1));
    } else if (event.key === "Enter") {
      this.open(this.images, this.active);
    } else if (event.key === " ") {
      this.choices.toggle(this.images[this.active]);
    } else {
      return;
    }
    event.preventDefault();
  }

  // What stands above (-1) or below (1) the active picture.
  above(direction) {
    const rows = this.lines.filter((line) => !line.section);
    const at = rows.findIndex((line) => this.active >= line.first && this.active < line.stop);
    const next = rows[at + direction];
    if (!next) return this.active;
    return Math.min(next.first + this.active - rows[at].first, next.stop - 1);
  }

  moveTo(at) {
    this.active = at;
    const line = this.lines.find((one) => !one.section && at >= one.first && at < one.stop);
    const {scroller} = this;
    if (line.top < scroller.scrollTop) scroller.scrollTop = line.top - TILE_GAP;
    const below = line.top + line.height - scroller.scrollTop - scroller.clientHeight;
    if (below > 0) scroller.scrollTop += below + TILE_GAP;
    this.draw();
  }
}
