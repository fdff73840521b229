// A histogram of a column, and the part of it that is wanted: between two sliders, or as typed.

const BINS = 40;
const STEPS = 400;

class Range {
  // `field` are the attributes of an input that takes such a value; `unit` is the least step of it;
  // `format` writes a value, `note` says more of it; `changed` is called when a bound was.
  constructor(parent, title, values, {field, unit, format, note = ""}, changed) {
    [this.low, this.high] = extent(values);
    Object.assign(this, {values, unit, format});
    this.bounds = [null, null];  // from, to; null: none
    this.sliders = ["from", "to"].map((end, at) => make("input", {
      type: "range", min: 0, max: STEPS, "aria-label": `${title} ${end}`,
      oninput: () => { this.onSlide(at); changed(); }}));
    this.fields = ["from", "to"].map((end, at) => make("input", {
      ...field, "aria-label": `${title} ${end}, exactly`,
      oninput: () => { this.onType(at); changed(); }, onblur: () => this.draw()}));
    this.output = make("output");
    this.bars = this.histogram();
    parent.append(make("div", {class: "range", role: "group", "aria-label": title},
      make("div", {class: "heading"}, make("span", {}, title, make("small", {}, note)), this.output),
      make("div", {class: "sliders"}, this.bars, ...this.sliders),
      make("div", {class: "fields"}, ...this.fields)));
    this.draw();
  }

  histogram() {
    const counts = new Array(BINS).fill(0);
    const width = (this.high - this.low) || 1;
    for (const value of this.values) {
      if (!Number.isFinite(value)) continue;
      counts[Math.min(BINS - 1, Math.floor((value - this.low) / width * BINS))] += 1;
    }
    const most = Math.max(1, ...counts);
    const draw = (name, attributes) => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", name);
      for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
      return element;
    };
    const svg = draw("svg", {viewBox: `0 0 ${BINS} 1`, preserveAspectRatio: "none",
      "aria-hidden": "true"});
    // The square root: what is rare stays in sight.
    svg.append(...counts.map((count, at) => draw("rect", {
      x: at + 0.08, width: 0.84, y: 1 - Math.sqrt(count / most), height: Math.sqrt(count / most)})));
    return svg;
  }

  // Down to the unit; without what a product of such numbers adds in the sixteenth digit.
  rounded(value) {
    return Number((Math.floor(value / this.unit) * this.unit).toPrecision(15));
  }

  // One that keeps nothing known out is none, nor is NaN, what a field says that is not filled in.
  setBound(at, value) {
    const keeps = at === 0 ? value > this.low : value + this.unit <= this.high;
    this.bounds[at] = keeps ? value : null;
  }

  get crossed() {
    const [from, to] = this.bounds;
    return from !== null && to !== null && from > to;
  }

  onSlide(at) {
    const place = this.sliders[at].valueAsNumber;
    this.setBound(at, place === at * STEPS ? NaN
      : this.rounded(this.low + (this.high - this.low) * place / STEPS));
    if (this.crossed) this.setBound(1 - at, this.bounds[at]);  // neither slider passes the other
    this.draw(this.sliders[at]);
  }

  // A year is typed digit by digit: the other bound must not follow.
  onType(at) {
    this.setBound(at, this.fields[at].valueAsNumber);
    this.draw(this.fields[at]);
  }

  // A test of a value; what is unknown passes only where all does. All of the unit that the upper
  // bound names is within it: a time of 12:00:07.5 is not after 12:00:07.
  test() {
    const [from, to] = this.bounds;
    if (from === null && to === null) return () => true;
    const least = from ?? -Infinity, below = (to ?? Infinity) + this.unit;
    return (value) => value >= least && value < below;
  }

  reset() {
    this.bounds = [null, null];
    this.draw();
  }

  // `used` is left as it is: someone is at it.
  draw(used = null) {
    const {sliders, fields, crossed} = this;
    [this.low, this.high].forEach((end, at) => {
      const bound = this.bounds[at], value = bound ?? this.rounded(end);
      if (sliders[at] !== used) {
        sliders[at].value = bound === null ? at * STEPS
          : Math.round((bound - this.low) / (this.high - this.low) * STEPS);
      }
      sliders[at].setAttribute("aria-valuetext", this.format(value));
      if (fields[at] !== used) fields[at].valueAsNumber = value;
      fields[at].setAttribute("aria-invalid", String(crossed));
    });
    this.output.textContent = crossed ? "ends before it begins"
      : this.bounds.every((bound) => bound === null) ? "all" : "";
    const [from, to] = sliders.map((slider) => slider.valueAsNumber);
    [...this.bars.children].forEach((bar, at) => bar.classList.toggle("out",
      (at + 1) / BINS * STEPS <= from || at / BINS * STEPS >= to));
  }
}
