// A picture that can be looked at closer, pinned, held, and asked for more of: the same everywhere.

import {colourOf, element} from "./dom.js";
import {labelOf, markOf, onState, pictureOf, store, targetWeight, toggles} from "./store.js";
import {look} from "./viewer.js";

const KEYS = {p: "pin", h: "hold", m: "like"};

// `list` gives the facts of all tiles beside it, for going from one to the next when looking closer.
export function tile(facts, list) {
  const made = element("button", {className: "tile", type: "button"},
    element("img", {src: pictureOf(facts.image), alt: "", loading: "lazy", decoding: "async",
      draggable: false}));
  made.facts = facts;
  if (facts.cluster !== null) made.style.setProperty("--kind", colourOf(facts.cluster));
  made.addEventListener("click", () => look(facts, list()));
  made.addEventListener("keydown", onKey);
  refresh(made);
  return made;
}

// For the wall, which knows no more of its samples than their ids.
export function plainPicture(image) {
  return element("img", {src: pictureOf(image), alt: "", loading: "lazy", decoding: "async"});
}

function onKey(event) {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  const action = KEYS[event.key.toLowerCase()];
  if (action) {
    toggles[action](event.currentTarget.facts);
  } else if (!move(event.currentTarget, event.key)) {
    return;
  }
  event.preventDefault();
}

function move(from, key) {
  const tiles = [...from.closest(".grid, .queue").querySelectorAll(".tile")];
  const rows = tiles.filter((one) => one.offsetTop === tiles[0].offsetTop).length;
  const steps = {ArrowLeft: -1, ArrowRight: 1, ArrowUp: -rows, ArrowDown: rows,
    Home: -tiles.length, End: tiles.length}[key];
  if (!steps) return false;
  const place = tiles.indexOf(from) + steps;
  tiles[Math.min(Math.max(place, 0), tiles.length - 1)].focus();
  return true;
}

function refresh(made) {
  const {facts} = made;
  const mark = markOf(facts.sha256);
  const liked = targetWeight(facts.sha256) > 0;
  made.dataset.mark = mark;
  made.classList.toggle("liked", liked);
  const words = [facts.name, facts.cluster === null ? "no cluster yet" : labelOf(facts.cluster)];
  if (facts.state !== "queued") words.push(facts.state);
  if (mark !== "free") words.push(mark === "pin" ? "pinned" : "held");
  if (liked) words.push("more like this wanted");
  if (facts.change) words.push(facts.change);
  made.title = words.join(" · ") + (facts.reason ? "\n" + facts.reason : "");
  made.setAttribute("aria-label", words.join(", "));
}

onState(() => {
  if (store.state) document.querySelectorAll(".tile").forEach(refresh);
});
