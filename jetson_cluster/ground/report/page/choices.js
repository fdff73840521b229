// Which images the filters show, and which are selected. Whoever draws listens for "shown" and
// "selected".

class Choices extends EventTarget {
  constructor(count) {
    super();
    this.shown = new Uint8Array(count).fill(1);
    this.shownCount = count;
    this.selected = new Uint8Array(count);
    this.selectedCount = 0;
  }

  // What the filters let through, Uint8 by image.
  show(mask) {
    this.shown = mask;
    this.shownCount = mask.reduce((sum, one) => sum + one, 0);
    this.dispatchEvent(new Event("shown"));
  }

  // How: "replace" the selection by these images, "add" them, "remove" them.
  select(images, how) {
    if (how === "replace") this.selected.fill(0);
    for (const image of images) this.selected[image] = how === "remove" ? 0 : 1;
    this.selectedCount = this.selected.reduce((sum, one) => sum + one, 0);
    this.dispatchEvent(new Event("selected"));
  }

  toggle(image) {
    this.select([image], this.selected[image] ? "remove" : "add");
  }

  listOf(mask) {
    const found = [];
    for (let image = 0; image < mask.length; image++) if (mask[image]) found.push(image);
    return found;
  }

  shownOf(images) {
    return this.shownCount === this.shown.length ? images
      : images.filter((image) => this.shown[image]);
  }
}
