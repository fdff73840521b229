// Looking through one cluster, or through what a search found.

import {ask, byId, many, say} from "./dom.js";
import {labelOf} from "./store.js";
import {tile} from "./tiles.js";

const dialog = byId("members");
const grid = byId("members-grid");
let shown = [];
let next = null; // asks for the following members, from the count of those shown
let turn = 0;

export function openCluster(number) {
  begin(labelOf(number), (start) => `/api/cluster/${number}?start=${start}` +
    `&order=${byId("members-order").value}&queued=${byId("members-queued").checked ? 1 : 0}`);
  byId("members-order-label").hidden = byId("members-queued-label").hidden = false;
}

export function openSearch(words) {
  begin(`Found for “${words}”`, (start) =>
    `/api/search?start=${start}&words=${encodeURIComponent(words)}`);
  byId("members-order-label").hidden = byId("members-queued-label").hidden = true;
}

function begin(title, path) {
  byId("members-title").textContent = title;
  next = path;
  restart();
  if (!dialog.open) dialog.showModal();
}

function restart() {
  shown = [];
  grid.replaceChildren();
  more();
}

async function more() {
  const mine = ++turn;
  try {
    const found = await ask(next(shown.length));
    if (mine !== turn) return;
    const first = grid.childElementCount;
    shown = shown.concat(found.images);
    grid.append(...found.images.map((facts) => tile(facts, () => shown)));
    byId("members-count").textContent = shown.length < found.total
      ? `${shown.length} of ${many(found.total, "image")}` : many(found.total, "image");
    byId("members-more").hidden = shown.length >= found.total;
    (grid.children[first] || byId("members-more")).focus();
  } catch (error) {
    say(error.message, true);
  }
}

byId("members-more").addEventListener("click", more);
byId("members-order").addEventListener("change", restart);
byId("members-queued").addEventListener("change", restart);
