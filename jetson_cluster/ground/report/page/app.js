// The page: its parts put together, which view is shown, and the keys that hold everywhere.

const archive = new Archive(JSON.parse(byId("data").textContent));
const atlas = new Atlas(archive);
const choices = new Choices(archive.count);
const viewer = new Viewer(archive, atlas, choices, showOnMap);
const open = (images, at) => viewer.open(images, at);
const filters = new Filters(archive, choices);
const map = new ImageMap(archive, atlas, choices);
const gestures = new Gestures(map, open);
const rows = new Rows(byId("rows"), archive, atlas, choices, open, archive.cell);
const clusters = new Clusters(archive, atlas, choices, rows, showOnMap);
const galleries = new Galleries(archive, choices, rows);
const panel = new Panel(archive, atlas, choices, open);
atlas.onload = map.render;

const VIEWS = {
  clusters: () => clusters.wall(),
  "near-duplicates": () => galleries.nearDuplicates(),
  outliers: () => galleries.outliers(),
  exposures: () => galleries.exposures(),
  failed: () => galleries.failed(),
};

// The view that the address names after its #; the map if it names none.
function showView() {
  const asked = location.hash.slice(1);
  const cluster = /^cluster-(\d+)$/.exec(asked);
  const known = cluster && Number(cluster[1]) < archive.clusters.length || asked in VIEWS;
  byId("view-map").hidden = Boolean(known);
  byId("view-rows").hidden = !known;
  for (const link of document.querySelectorAll("nav a")) {
    const here = link.hash === "#" + (cluster && known ? "clusters" : known ? asked : "map");
    if (here) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  byId("view-rows").scrollTop = 0;
  if (cluster && known) clusters.one(Number(cluster[1]));
  else if (known) VIEWS[asked]();
}

function showOnMap(images) {
  location.hash = "#map";
  showView();
  map.showImages(images);
}

function drawScale() {
  const by = byId("colour-by").value;
  byId("scale").hidden = by === "cluster";
  const [low, high] = by === "time" ? extent(archive.captured).map(isoDay) : ["0", "1"];
  byId("scale-low").textContent = low;
  byId("scale-high").textContent = high;
  byId("scale").querySelector(".ramp").style.background = `linear-gradient(to right, ${
    [0, 0.25, 0.5, 0.75, 1].map((share) => css(rampColour(share))).join(", ")})`;
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const typing = event.target.matches("input:not([type=checkbox], [type=range]), select");
  if (event.key === "Escape" && !document.querySelector("dialog[open]")) {
    if (typing) event.target.blur();
    else choices.select([], "replace");
  }
  if (typing || document.querySelector("dialog[open]")) return;
  if (event.key === "/") byId("search").focus();
  else if (event.key === "a") panel.selectShown();
  else if (event.key === "l" && !byId("view-map").hidden) gestures.setLasso(!gestures.lassoing);
  else if (event.key === "?") byId("help").showModal();
  else return;
  event.preventDefault();
}

byId("title").textContent = legible(archive.title);
document.title = `${legible(archive.title)}: ${counted(archive.clusters.length, "cluster")}`;
byId("summary").textContent = byId("summary").title = `${counted(archive.count, "image")} · ${
  counted(archive.clusters.length, "cluster")} · ${archive.space} · made ${archive.made}`;
for (const [view, count] of [["near-duplicates", galleries.groups.length],
  ["outliers", galleries.unusual.length], ["exposures", galleries.bad.length],
  ["failed", archive.failed.length]]) {
  document.querySelector(`nav a[href="#${view}"]`).append(make("small", {}, whole(count)));
}
document.querySelector('#colour-by option[value="time"]').disabled = !filters.time;
byId("colour-by").addEventListener("change", (event) => {
  map.colour(event.target.value);
  drawScale();
});
darkness.addEventListener("change", drawScale);
byId("with-pictures").addEventListener("change", map.render);
byId("with-names").addEventListener("change", map.render);
byId("tool-move").addEventListener("click", () => gestures.setLasso(false));
byId("tool-lasso").addEventListener("click", () => gestures.setLasso(true));
byId("zoom-in").addEventListener("click", () => map.zoom(1.5));
byId("zoom-out").addEventListener("click", () => map.zoom(1 / 1.5));
byId("zoom-fit").addEventListener("click", () => map.fit());
byId("help-open").addEventListener("click", () => byId("help").showModal());
byId("help-close").addEventListener("click", () => byId("help").close());
choices.addEventListener("shown", () => {
  if (location.hash === "#clusters") clusters.drawCounts();
  else if (byId("view-map").hidden) showView();
});
addEventListener("hashchange", showView);
document.addEventListener("keydown", onKey);
drawScale();
showView();
