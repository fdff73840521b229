// Near-duplicates, outliers, bad frames, and the files that are no images at all.

const FAILED_SHOWN = 2000;
// Clusters lean toward the images they were made of, so few of those are far from all of them.
const OUTLIERS_SHARE = 0.02;

class Galleries {
  constructor(archive, choices, rows) {
    Object.assign(this, {archive, choices, rows});
    this.head = byId("rows-head");
    this.groups = archive.groups();
    const all = Array.from(archive.x.keys());
    const most = Math.ceil(OUTLIERS_SHARE * all.length);
    this.unusual = [...all].sort((one, other) => archive.novelty[other] - archive.novelty[one]
      || archive.distance[other] - archive.distance[one])
      .filter((image, place) => place < most || archive.far[image]);
    this.bad = all.filter((image) => archive.factor[image] < 1)
      .sort((one, other) => archive.factor[one] - archive.factor[other] || one - other);
  }

  heading(title, words, images) {
    const select = make("button", {type: "button", onclick: () =>
      this.choices.select(images, "add")}, "Select all of these");
    select.disabled = !images.length;
    this.head.replaceChildren(make("div", {class: "line"}, make("h2", {}, title), select),
      make("p", {class: "note"}, words));
  }

  nearDuplicates() {
    const groups = this.groups.map((group) => this.choices.shownOf(group))
      .filter((group) => group.length > 1);
    const spare = groups.flatMap((group) => group.slice(1));
    this.heading(counted(groups.length, "group") + " of near-duplicates", groups.length
      ? `Pictures of the same scene. The rover sends one of each first; ${
        counted(spare.length, "image")} could wait.`
      : "No two images that the filters show are nearly the same.", spare);
    byId("rows-head").querySelector("button").textContent = "Select all but the most typical";
    this.rows.show(groups.map((group) => ({
      title: counted(group.length, "image"), images: group,
      note: this.archive.clusterName(this.archive.cluster[group[0]]),
    })));
  }

  outliers() {
    const images = this.choices.shownOf(this.unusual);
    this.heading(counted(images.length, "outlier"), images.length
      ? "The 2 of 100 images that are least like their cluster, and all that the rover would call far "
        + "from the archive: discoveries and junk. The most unusual first."
      : "Every image that the filters show is like its cluster.", images);
    this.rows.show(images.length ? [{images}] : []);
  }

  exposures() {
    const images = this.choices.shownOf(this.bad);
    const kinds = new Map();
    for (const image of images) {
      const kind = this.archive.reasons[image].split(":")[0].replace(/^[\d.]+ % of/, "some of");
      if (!kinds.has(kind)) kinds.set(kind, []);
      kinds.get(kind).push(image);
    }
    this.heading(counted(images.length, "bad frame"), images.length
      ? "Badly exposed, blurred, blank or damaged by the policy's thresholds; the worst first."
      : "Every frame that the filters show is sound.", images);
    this.rows.show([...kinds].sort((one, other) => other[1].length - one[1].length)
      .map(([kind, members]) => ({title: kind, note: counted(members.length, "image"),
        images: members})));
  }

  failed() {
    const {failed} = this.archive;
    const lines = failed.slice(0, FAILED_SHOWN).map(([path, code, reason]) => make("tr", {},
      make("td", {class: "path"}, legible(path)), make("td", {}, code),
      make("td", {}, legible(reason))));
    this.head.replaceChildren(
      make("h2", {}, failed.length === 1 ? "1 file is no usable image"
        : `${whole(failed.length)} files are no usable images`),
      make("p", {class: "note"}, failed.length > FAILED_SHOWN
        ? `The first ${whole(FAILED_SHOWN)}; all are in the corpus's failed.csv.` : ""));
    if (failed.length) {
      this.head.append(make("table", {}, make("thead", {}, make("tr", {},
        ...["File", "Code", "Why"].map((name) => make("th", {scope: "col"}, name)))),
      make("tbody", {}, ...lines)));
    }
    this.rows.show([]);
  }
}
