// The filters at the side: words, clusters, novelty, time. What they let through is in `choices`.

class Filters {
  constructor(archive, choices) {
    Object.assign(this, {archive, choices});
    this.words = byId("search");
    this.texts = null;  // what is searched, by image; made at the first search
    const apply = this.apply = onceAFrame(() => this.filter());
    this.words.addEventListener("input", apply);
    this.novelty = new Range(byId("ranges"), "Novelty", archive.novelty, {
      field: {type: "number", step: 0.001}, unit: 0.001, format: (value) => value.toFixed(3),
    }, apply);
    const [first, last] = extent(archive.captured);
    this.time = last > first ? new Range(byId("ranges"), "Time taken", archive.captured, {
      // Such a field holds a time without a zone, whose number takes it for UTC, as we do. Years of
      // four digits: else a browser waits for a fifth and a sixth before it goes on to the hour.
      field: {type: "datetime-local", step: 1, max: "9999-12-31T23:59:59"},
      unit: 1000, format: isoTime, note: " UTC",
    }, apply) : null;
    this.boxes = archive.clusters.map((cluster) => this.clusterLine(cluster));
    byId("clusters-all").addEventListener("click", () => this.onlyClusters(() => true));
    byId("clusters-none").addEventListener("click", () => this.onlyClusters(() => false));
    byId("filters-clear").addEventListener("click", () => this.clear());
    choices.addEventListener("shown", () => this.drawCount());
    darkness.addEventListener("change", () => this.drawSwatches());
    this.drawSwatches();
    this.drawCount();
  }

  clusterLine({number, label, size}) {
    const box = make("input", {type: "checkbox", checked: true, onchange: this.apply});
    byId("cluster-list").append(make("li", {},
      make("label", {}, box, make("span", {class: "swatch"}), make("b", {}, String(number)),
        make("span", {class: "name"}, legible(label)), make("span", {class: "size"}, whole(size))),
      make("button", {type: "button", "aria-label": `only cluster ${number}`,
        onclick: () => this.onlyClusters((other) => other === number)}, "only")));
    return box;
  }

  drawSwatches() {
    [...byId("cluster-list").querySelectorAll(".swatch")].forEach((swatch, number) => {
      swatch.style.background = css(clusterColour(number));
    });
  }

  onlyClusters(wanted) {
    this.boxes.forEach((box, number) => { box.checked = wanted(number); });
    this.filter();
  }

  clear() {
    this.words.value = "";
    this.novelty.reset();
    if (this.time) this.time.reset();
    this.onlyClusters(() => true);
  }

  filter() {
    const {archive} = this;
    const wanted = this.boxes.map((box) => box.checked);
    const novel = this.novelty.test();
    const timely = this.time ? this.time.test() : () => true;
    const found = this.search();
    const mask = new Uint8Array(archive.count);
    for (let image = 0; image < archive.count; image++) {
      mask[image] = wanted[archive.cluster[image]] && novel(archive.novelty[image])
        && timely(archive.captured[image]) && found(image) ? 1 : 0;
    }
    this.choices.show(mask);
  }

  // A test of an image: every word is somewhere in its path or label, or begins its hash.
  search() {
    const words = this.words.value.toLowerCase().split(/\s+/).filter(Boolean);
    if (!words.length) return () => true;
    const {archive} = this;
    this.texts ??= Array.from({length: archive.count}, (_, image) => `${legible(archive.path(image))}\n${
      legible(archive.clusters[archive.cluster[image]].label)}`.toLowerCase());
    const tests = words.map((word) => /^[0-9a-f]{6,64}$/.test(word)
      ? (image) => this.texts[image].includes(word) || archive.hash(image).startsWith(word)
      : (image) => this.texts[image].includes(word));
    return (image) => tests.every((test) => test(image));
  }

  drawCount() {
    const {shownCount, shown} = this.choices;
    byId("shown-count").textContent = shownCount === shown.length
      ? `all ${counted(shown.length, "image")} shown`
      : `${whole(shownCount)} of ${counted(shown.length, "image")} shown`;
    byId("filters-clear").disabled = shownCount === shown.length;
  }
}
