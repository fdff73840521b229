// The next pass, now and edited, side by side; asked for anew with every change.

import {ask, byId, colourOf, element, inUnits, many, say} from "./dom.js";
import {onState, store} from "./store.js";
import {tile} from "./tiles.js";

const PAUSE_MS = 150; // between questions while images are valued anew
let turn = 0;
let shownFor = "";

export async function refresh() {
  const mine = ++turn;
  const budget = byId("budget").value.trim();
  const state = byId("pass-state");
  state.className = "";
  while (mine === turn) {
    try {
      const found = await ask("/api/pass?budget=" + encodeURIComponent(budget));
      if (mine !== turn) return;
      if (found.done >= 1) {
        state.textContent = "";
        show(found);
        return;
      }
      state.textContent = `valuing images: ${Math.floor(100 * found.done)} %`;
    } catch (error) {
      if (mine !== turn) return;
      state.textContent = error.message;
      state.className = "wrong";
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}

function show(found) {
  for (const image of found.draft.images) {
    const moved = image.other === null ? null : image.other - image.place;
    image.change = image.other === null ? "new in this pass" : moved > 0 ? `up ${moved}`
      : moved < 0 ? `down ${-moved}` : "";
    image.badge = image.other === null ? "new" : moved > 0 ? "↑" + moved
      : moved < 0 ? "↓" + -moved : "";
  }
  for (const image of found.now.images) {
    image.change = image.other === null ? "not in the edited pass" : "";
    image.badge = image.other === null ? "out" : "";
  }
  side("now", found.now);
  side("draft", found.draft);
  classes(found.classes);
}

function side(name, pass) {
  const box = byId(name);
  const focused = box.contains(document.activeElement) ? document.activeElement.facts.image : null;
  const before = [...box.children].indexOf(document.activeElement);
  box.replaceChildren(...pass.images.map((facts) => {
    const made = tile(facts, () => pass.images);
    if (facts.badge) {
      made.append(element("span", {className: "badge", textContent: facts.badge}));
      made.classList.add(facts.other === null ? (name === "now" ? "out" : "new") : "moved");
    }
    return made;
  }));
  if (focused !== null) { // the same image, or what stands in its place now
    ([...box.children].find((one) => one.facts.image === focused) ||
      box.children[Math.min(before, box.children.length - 1)])?.focus();
  }
  const words = [many(pass.images.length, "image"), inUnits(pass.bytes)];
  if (pass.previews) words.push(many(pass.previews, "preview") + ", " + inUnits(pass.previewBytes));
  byId(name + "-about").textContent = words.concat(pass.notes).join(" · ");
}

function classes(found) {
  const most = Math.max(1, ...found.flatMap((one) => [one.now[0], one.draft[0]]));
  byId("classes").tBodies[0].replaceChildren(...found.map((one) => {
    const difference = one.draft[0] - one.now[0];
    const bars = element("div", {className: "bars"},
      bar(one.now[0] / most, "was"), bar(one.draft[0] / most, "is"));
    const row = element("tr", {title: `${inUnits(one.now[1])} now, ${inUnits(one.draft[1])} edited`},
      element("th", {scope: "row", textContent: one.name}),
      element("td", {textContent: one.now[0]}), element("td", {textContent: one.draft[0]}),
      element("td", {className: difference > 0 ? "up" : difference < 0 ? "down" : "",
        textContent: difference > 0 ? "+" + difference : difference < 0 ? "−" + -difference : ""}),
      element("td", {}, bars));
    row.style.setProperty("--kind", colourOf(one.clusters[0]));
    return row;
  }));
}

function bar(share, kind) {
  const made = element("div", {className: kind});
  made.style.width = 100 * share + "%";
  return made;
}

byId("budget").addEventListener("change", refresh);
byId("budget").addEventListener("keydown", (event) => {
  if (event.key === "Enter") refresh();
});
onState((state) => {
  if (!byId("budget").value) byId("budget").value = state.budget % 1e6 ? state.budget / 1e3 + "kB"
    : state.budget / 1e6 + "MB";
  const wanted = `${state.version} ${byId("budget").value}`;
  if (wanted === shownFor) return;
  shownFor = wanted;
  refresh();
});
