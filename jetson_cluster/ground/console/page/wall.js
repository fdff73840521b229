// The clusters: what each looks like, its name, its weight, and how much of it waits.

import {byId, colourOf, element, inUnits, many} from "./dom.js";
import {change, onState, store, weightOf} from "./store.js";
import {plainPicture} from "./tiles.js";
import {openCluster} from "./members.js";

// What − and + step through; any other weight can be typed.
const LADDER = [0, 0.1, 0.25, 0.5, 1, 2, 3, 5, 10, 20, 50, 100, 1000];
const cards = new Map();

export function step(weight, up) {
  return up ? LADDER.find((one) => one > weight) ?? LADDER[LADDER.length - 1]
    : LADDER.findLast((one) => one < weight) ?? 0;
}

// A weight with − and +; `read` gives it as it stands, `write` takes a function that gives another.
export function weightControl(name, read, write) {
  const field = element("input", {className: "weight", inputMode: "decimal", autocomplete: "off"});
  field.setAttribute("aria-label", "Weight of " + name);
  const by = (up) => () => write(() => step(read(), up));
  const less = element("button", {type: "button", textContent: "−", onclick: by(false)});
  const more = element("button", {type: "button", textContent: "+", onclick: by(true)});
  less.setAttribute("aria-label", "Less of " + name);
  more.setAttribute("aria-label", "More of " + name);
  field.addEventListener("change", () => {
    const typed = Number(field.value.trim().replace(",", ".") || NaN);
    write(() => typed);
  });
  field.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowUp" && event.key !== "ArrowDown") return;
    event.preventDefault();
    by(event.key === "ArrowUp")();
  });
  const made = element("span", {className: "weigh"}, less, field, more);
  made.show = (weight) => {
    field.value = weight;
    less.disabled = weight <= 0;
    more.disabled = weight >= 1000;
  };
  return made;
}

function card(cluster) {
  const number = cluster.number;
  const label = element("input", {className: "label", maxLength: 80, placeholder: "no name yet",
    autocomplete: "off", spellcheck: false});
  label.setAttribute("aria-label", "Name of cluster " + number);
  label.addEventListener("change", () => {
    const typed = label.value;
    change("label", number, () => typed);
  });
  label.addEventListener("keydown", (event) => {
    if (event.key === "Enter") label.blur();
    if (event.key === "Escape") label.value = store.state.labels[number] || "";
  });
  const weigh = weightControl("cluster " + number, () => weightOf(number),
    (weight) => change("weight", number, weight));
  const open = element("button", {className: "samples", type: "button",
    onclick: () => openCluster(number)}, ...cluster.sample.map(plainPicture));
  open.setAttribute("aria-label", "Look through cluster " + number);
  const made = element("article", {className: "card"},
    element("div", {className: "head"},
      element("span", {className: "number", textContent: number}), label, weigh),
    open,
    element("p", {className: "quiet"}, describe(cluster),
      element("span", {className: "was"})));
  made.style.setProperty("--kind", colourOf(number));
  made.label = label;
  made.weigh = weigh;
  return made;
}

function describe(cluster) {
  const words = [many(cluster.queued, "image") + " queued, " + inUnits(cluster.queued_bytes)];
  if (cluster.on_ground) words.push(cluster.on_ground + " on the ground");
  if (cluster.held) words.push(cluster.held + " held");
  return words.join(" · ");
}

function arrange() {
  const by = {
    number: (one) => one.number,
    queued: (one) => -one.queued,
    weight: (one) => -weightOf(one.number),
    label: (one) => [store.state.labels[one.number] ? 0 : 1, store.state.labels[one.number] || ""],
  }[byId("wall-order").value];
  const sorted = [...store.clusters].sort((one, other) => {
    const [a, b] = [by(one), by(other)];
    return String(a) === String(b) ? one.number - other.number
      : typeof a === "number" ? a - b : String(a).localeCompare(String(b), "en");
  });
  byId("wall").append(...sorted.map((cluster) => cards.get(cluster.number)));
}

function show(state) {
  if (!cards.size) {
    for (const cluster of store.clusters) cards.set(cluster.number, card(cluster));
    arrange();
  }
  for (const [number, made] of cards) {
    const weight = weightOf(number);
    const [label, before] = [state.labels[number] || "", state.labelsNow[number] || ""];
    const weightNow = state.weightsNow[number] ?? 1;
    if (made.label !== document.activeElement || !made.label.matches(":focus-visible")) {
      made.label.value = label;
    }
    made.weigh.show(weight);
    made.classList.toggle("zero", weight === 0);
    const was = [];
    if (label !== before) was.push(before ? `was called ${before}` : "named here");
    if (weight !== weightNow) was.push(`weight was ${weightNow}`);
    made.classList.toggle("changed", was.length > 0);
    made.querySelector(".was").textContent = was.length ? was.join(", ") : "";
  }
}

byId("wall-order").addEventListener("change", arrange);
onState(show);
