// The thumbnails: cells of a few large sprites, loaded when one of their pictures is to be seen.

const KEPT = 64;  // decoded sprites, 5 MB each

class Atlas {
  constructor(archive) {
    this.archive = archive;
    this.cells = archive.columns ** 2;
    this.urls = Array.isArray(archive.sprites) ? archive.sprites : [];  // else they are in the page
    this.inPage = document.getElementsByClassName("sprite");
    this.decoded = new Map();  // sprite -> {picture}, the one used longest ago first
    this.asked = new Set();  // sprites of the picture that is being drawn
    this.onload = () => {};  // called when a sprite that `draw` lacked is there
  }

  // Where a thumbnail stands: its sprite, and x, y, width and height there in pixels.
  cell(image) {
    const {cell, columns, thumbnails} = this.archive;
    const at = image % this.cells;
    return {
      sprite: Math.floor(image / this.cells), x: at % columns * cell,
      y: Math.floor(at / columns) * cell, width: thumbnails[2 * image],
      height: thumbnails[2 * image + 1],
    };
  }

  url(sprite) {
    if (!this.urls[sprite]) {
      const raw = atob(this.inPage[sprite].textContent);
      const bytes = Uint8Array.from(raw, (letter) => letter.charCodeAt(0));
      this.urls[sprite] = URL.createObjectURL(new Blob([bytes], {type: "image/webp"}));
    }
    return this.urls[sprite];
  }

  // Shows a thumbnail as the background of an element, its longest side `size` CSS pixels or less.
  show(element, image, size) {
    const {sprite, x, y, width, height} = this.cell(image);
    const {cell, columns, count} = this.archive;
    const rows = Math.ceil(Math.min(this.cells, count - sprite * this.cells) / columns);
    const zoom = size / cell;
    Object.assign(element.style, {
      width: `${width * zoom}px`, height: `${height * zoom}px`,
      backgroundImage: `url("${this.url(sprite)}")`,
      backgroundPosition: `${-x * zoom}px ${-y * zoom}px`,
      backgroundSize: `${columns * cell * zoom}px ${rows * cell * zoom}px`,
    });
  }

  // To be called before a canvas is drawn anew.
  begin() {
    this.asked.clear();
  }

  // Draws a thumbnail into a box of a canvas; false if it is not there. If it comes, `onload` tells;
  // it does not if this picture has as many sprites already as are kept: they would drive one
  // another out for ever.
  draw(context, image, left, top, width, height) {
    const cell = this.cell(image);
    const picture = this.sprite(cell.sprite);
    if (!picture) return false;
    context.drawImage(picture, cell.x, cell.y, cell.width, cell.height, left, top, width, height);
    return true;
  }

  // A decoded sprite, or null if it is not there.
  sprite(number) {
    if (!this.asked.has(number) && this.asked.size === KEPT) return null;
    this.asked.add(number);
    let entry = this.decoded.get(number);
    if (entry) {
      this.decoded.delete(number);
    } else {
      entry = {picture: null};
      const loading = new Image();
      loading.onload = () => createImageBitmap(loading).then((bitmap) => {
        if (this.decoded.get(number) !== entry) return bitmap.close();  // dropped meanwhile
        entry.picture = bitmap;
        this.onload();
      });
      loading.src = this.url(number);
    }
    this.decoded.set(number, entry);
    if (this.decoded.size > KEPT) {
      const [oldest, dropped] = this.decoded.entries().next().value;
      this.decoded.delete(oldest);
      if (dropped.picture) dropped.picture.close();
    }
    return entry.picture;
  }
}
