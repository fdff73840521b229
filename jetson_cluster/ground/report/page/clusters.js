// The wall of clusters, and one cluster: its most typical, most unusual and random members, and all.

const ON_CARD = 6;
const STRIP_GAP = 5;  // as in style.css
const AT_RANDOM = 24;

const CLUSTER_ORDERS = {
  number: ["number", (one, other) => one.number - other.number],
  size: ["size", (one, other) => other.size - one.size],
  spread: ["spread", (one, other) => other.spread - one.spread],
  weight: ["weight", (one, other) => other.weight - one.weight],
  label: ["label", (one, other) => !one.label - !other.label || one.label.localeCompare(other.label)],
};

const sheetName = (number) => `sheets/cluster-${String(number).padStart(5, "0")}.png`;

// `count` of these images, at random, in their order.
function drawnAtRandom(images, count) {
  const left = [...images], drawn = [];
  while (left.length && drawn.length < count) {
    drawn.push(...left.splice(Math.floor(Math.random() * left.length), 1));
  }
  return drawn.sort((one, other) => one - other);
}

class Clusters {
  constructor(archive, atlas, choices, rows, showOnMap) {
    Object.assign(this, {archive, atlas, choices, rows, showOnMap});
    this.order = "number";
    this.head = byId("rows-head");
    this.widest = Math.max(...archive.clusters.map(({spread}) => spread), 1e-9);
    this.cards = [];
  }

  // ---- the wall ------------------------------------------------------------------------------

  wall() {
    const sorter = make("select", {id: "cluster-order", onchange: (event) => {
      this.order = event.target.value;
      this.wall();
      byId("cluster-order").focus();
    }}, ...Object.entries(CLUSTER_ORDERS).map(([value, [name]]) =>
      make("option", {value, selected: value === this.order}, name)));
    const clusters = [...this.archive.clusters].sort(CLUSTER_ORDERS[this.order][1]);
    this.cards = clusters.map((cluster) => this.card(cluster));
    this.head.replaceChildren(
      make("div", {class: "line"}, make("h2", {}, counted(clusters.length, "cluster")),
        make("label", {}, "sorted by ", sorter)),
      make("div", {class: "wall"}, ...this.cards));
    this.drawCounts();
    // Pictures come when their card is in sight: each card may need a sprite of its own.
    this.seen?.disconnect();
    this.seen = new IntersectionObserver((entries) => {
      for (const {isIntersecting, target} of entries) {
        if (!isIntersecting) continue;
        this.seen.unobserve(target);
        this.fillCard(target);
      }
    }, {rootMargin: "300px"});
    this.cards.forEach((card) => this.seen.observe(card));
    this.rows.show([]);
  }

  // What the filters let through of each cluster. The cards stay: there may be thousands.
  drawCounts() {
    for (const card of this.cards) {
      const {start, size, weight} = this.archive.clusters[card.dataset.number];
      let shown = 0;
      for (let image = start; image < start + size; image++) shown += this.choices.shown[image];
      const words = (shown === size ? counted(size, "image")
        : `${whole(shown)} of ${counted(size, "image")}`)
        + (weight === 1 ? "" : ` · weight ${weight}`);
      const line = card.querySelector(".count");
      if (line.textContent === words) continue;
      line.textContent = words;
      card.classList.toggle("out", !shown);
    }
  }

  card(cluster) {
    const swatch = make("span", {class: "swatch"});
    swatch.style.background = css(clusterColour(cluster.number));
    const bar = make("span", {class: "bar", title: `spread ${cluster.spread.toFixed(3)}`}, make("i"));
    bar.firstChild.style.width = `${100 * cluster.spread / this.widest}%`;
    const card = make("a", {class: "card", href: `#cluster-${cluster.number}`},
      make("h3", {}, swatch, this.archive.clusterName(cluster.number)),
      make("div", {class: "strip"}),
      make("p", {class: "count"}),
      make("p", {class: "spread"}, "spread ", bar, ` ${cluster.spread.toFixed(2)}`));
    card.dataset.number = cluster.number;
    return card;
  }

  fillCard(card) {
    const {start, size} = this.archive.clusters[card.dataset.number];
    const strip = card.querySelector(".strip");
    const side = (strip.clientWidth - 2 * STRIP_GAP) / 3;
    for (let at = 0; at < Math.min(size, ON_CARD); at++) {
      const thumb = make("span", {class: "thumb"});
      this.atlas.show(thumb, start + at, side);
      strip.append(thumb);
    }
  }

  // ---- one cluster ---------------------------------------------------------------------------

  one(number) {
    const cluster = this.archive.clusters[number];
    const members = this.archive.members(number);
    const shown = this.choices.shownOf(members);
    const step = (by, words) => {
      const other = (number + by + this.archive.clusters.length) % this.archive.clusters.length;
      return make("a", {class: "button", href: `#cluster-${other}`, "aria-label":
        `${words} cluster`}, by < 0 ? "←" : "→");
    };
    const swatch = make("span", {class: "swatch"});
    swatch.style.background = css(clusterColour(number));
    const facts = [counted(cluster.size, "image"), `spread ${cluster.spread.toFixed(3)}`,
      `weight ${cluster.weight}`];
    if (shown.length < members.length) {
      facts.push(`the filters hide ${whole(members.length - shown.length)}`);
    }
    const buttons = [
      make("button", {type: "button", onclick: () => this.showOnMap(shown)}, "Show on the map"),
      make("button", {type: "button", onclick: () => this.choices.select(shown, "add")},
        "Select all"),
    ];
    buttons.forEach((button) => { button.disabled = !shown.length; });
    if (this.archive.sheets && cluster.size) {
      buttons.push(make("a", {class: "button", href: sheetName(number), target: "_blank"},
        "Contact sheet"));
    }
    this.head.replaceChildren(make("div", {class: "line"},
      step(-1, "previous"), make("h2", {}, swatch, this.archive.clusterName(number)), step(1, "next"),
      make("span", {class: "note"}, facts.join(" · ")), ...buttons));
    this.drawn = drawnAtRandom(shown, AT_RANDOM);
    this.showMembers(shown);
  }

  showMembers(shown) {
    const some = Math.max(1, Math.min(this.rows.columns, Math.ceil(shown.length / 2)));
    const redraw = () => {
      this.drawn = drawnAtRandom(shown, AT_RANDOM);
      this.showMembers(shown);
    };
    this.rows.show(shown.length ? [
      {title: "Most typical", note: "nearest to the centre", images: shown.slice(0, some)},
      {title: "Most unusual", note: "farthest from it", images: shown.slice(-some).reverse()},
      {title: "At random", images: this.drawn, action: {text: "draw again", run: redraw}},
      {title: "All", note: "from typical to unusual", images: shown},
    ] : []);
  }
}
