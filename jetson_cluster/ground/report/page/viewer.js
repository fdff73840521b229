// The large view of one image, with all that is known of it, and the way to the next one.

const MOST_ENLARGED = 6;  // a thumbnail, before it is nothing but blur

class Viewer {
  constructor(archive, atlas, choices, showOnMap) {
    Object.assign(this, {archive, atlas, choices});
    this.dialog = byId("viewer");
    this.thumb = this.dialog.querySelector(".thumb");
    this.whole = this.dialog.querySelector("img");
    this.images = [];
    this.at = 0;
    const press = (selector, work) =>
      this.dialog.querySelector(selector).addEventListener("click", work);
    press(".before", () => this.step(-1));
    press(".after", () => this.step(1));
    press(".close", () => this.dialog.close());
    press(".select", () => this.choices.toggle(this.image));
    press(".on-map", () => { this.dialog.close(); showOnMap([this.image]); });
    this.dialog.addEventListener("keydown", (event) => this.onKey(event));
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.dialog.close();  // beside it
    });
    this.whole.addEventListener("load", () => {
      this.whole.hidden = false;
      this.note("");
    });
    this.whole.addEventListener("error", () => this.note(
      "This is the thumbnail: no image that a browser shows is at its path any more."));
    choices.addEventListener("selected", () => this.drawSelected());
  }

  get image() {
    return this.images[this.at];
  }

  // Shows one of these images; the arrows go through the others.
  open(images, at) {
    this.images = images;
    this.at = at;
    this.draw();
    if (!this.dialog.open) this.dialog.showModal();
    this.drawThumbnail();  // now that its box has a size
  }

  step(by) {
    const at = this.at + by;
    if (at < 0 || at >= this.images.length) return;
    this.at = at;
    this.draw();
    this.drawThumbnail();
  }

  onKey(event) {
    const onButton = event.target.tagName === "BUTTON";
    if (event.key === "ArrowLeft" || event.key === "ArrowUp") this.step(-1);
    else if (event.key === "ArrowRight" || event.key === "ArrowDown") this.step(1);
    else if (event.key === " " && !onButton) this.choices.toggle(this.image);
    else return;
    event.preventDefault();
  }

  note(text) {
    this.dialog.querySelector(".note").textContent = text;
  }

  draw() {
    const {archive, image} = this;
    const path = archive.path(image);
    this.dialog.querySelector(".position").textContent =
      `${whole(this.at + 1)} of ${whole(this.images.length)}`;
    this.dialog.querySelector(".before").disabled = this.at === 0;
    this.dialog.querySelector(".after").disabled = this.at === this.images.length - 1;
    this.dialog.querySelector("h2").textContent = legible(archive.names[image]);
    this.dialog.querySelector("dl").replaceChildren(...this.facts().flatMap(
      ([name, ...values]) => [make("dt", {}, name), ...values.map((value) => make("dd", {}, value))]));
    this.drawSelected();
    this.whole.hidden = true;
    this.whole.removeAttribute("src");
    // A page from a server may not show files of this computer: there the thumbnail has to do.
    if (location.protocol === "file:" && path.startsWith("/")) {
      this.note("");
      this.whole.src = fileUrl(path);
    } else {
      this.note("This is the thumbnail: the image itself is shown where the report is opened as a "
        + "file on the computer that has it.");
    }
  }

  // The thumbnail as large as the box allows, until the image itself is there, or instead of it.
  drawThumbnail() {
    const {width, height} = this.atlas.cell(this.image);
    const box = this.thumb.parentElement.getBoundingClientRect();
    const zoom = Math.min(box.width / width, box.height / height, MOST_ENLARGED);
    this.atlas.show(this.thumb, this.image, zoom * this.archive.cell);
  }

  drawSelected() {
    const button = this.dialog.querySelector(".select");
    const selected = this.images.length && this.choices.selected[this.image] === 1;
    button.setAttribute("aria-pressed", String(Boolean(selected)));
    button.textContent = selected ? "Selected" : "Select";
  }

  // [name, value, ...] of all that is known of the image.
  facts() {
    const {archive, image} = this;
    const cluster = archive.clusters[archive.cluster[image]];
    const swatch = make("span", {class: "swatch"});
    swatch.style.background = css(clusterColour(cluster.number));
    const link = make("a", {href: `#cluster-${cluster.number}`, onclick: () => this.dialog.close()},
      swatch, archive.clusterName(cluster.number));
    const place = image - cluster.start + 1;
    const facts = [
      ["cluster", link, `${whole(place)} of ${whole(cluster.size)} from its centre, distance `
        + archive.distance[image].toFixed(3)],
      ["novelty", archive.novelty[image].toFixed(2)
        + (archive.far[image] ? ", far from the archive" : "")],
      ["quality", archive.reasons[image]
        ? `${archive.factor[image].toFixed(2)}: ${archive.reasons[image]}` : "sound"],
    ];
    if (archive.group[image] >= 0) {
      const others = archive.group.reduce(
        (sum, group) => sum + (group === archive.group[image] ? 1 : 0), -1);
      facts.push(["near-duplicates", counted(others, "other image")]);
    }
    facts.push(
      ["taken", isoTime(archive.captured[image]) || "unknown"],
      ["size", `${archive.pixels[2 * image]} × ${archive.pixels[2 * image + 1]} pixels, `
        + byteSize(archive.bytes[image])],
      ["sha256", archive.hash(image)],
      ["path", legible(archive.path(image))]);
    if (archive.copies[image]) facts.push(["copies", ...archive.copies[image].map(legible)]);
    return facts;
  }
}
