// One image, large: what is known of it, what can be asked for it, and why it stands where it does.

import {ask, byId, element, inUnits, say} from "./dom.js";
import {labelOf, markOf, onState, pictureOf, store, targetWeight, toggles} from "./store.js";

const dialog = byId("viewer");
const ON_GROUND = ["sent", "acked", "deleted", "dropped"];
let list = [];
let place = 0;
let turn = 0;

export function look(facts, among) {
  list = among;
  place = Math.max(0, list.findIndex((one) => one.image === facts.image));
  show();
  if (!dialog.open) dialog.showModal();
}

function go(steps) {
  if (place + steps < 0 || place + steps >= list.length) return;
  place += steps;
  show();
}

function show() {
  const facts = list[place];
  byId("viewer-title").textContent = facts.name;
  byId("viewer-place").textContent = `${place + 1} of ${list.length}`;
  byId("viewer-picture").src = pictureOf(facts.image) + "?large=1";
  byId("viewer-picture").alt = "Picture of " + facts.name;
  byId("viewer-before").disabled = place === 0;
  byId("viewer-after").disabled = place + 1 === list.length;
  const known = [
    ["cluster", facts.cluster === null ? "none yet" : labelOf(facts.cluster)],
    ["state", facts.state], ["taken", facts.captured || "unknown"],
    ["size", `${facts.width} × ${facts.height}, ${inUnits(facts.bytes)}`],
    ["novelty", facts.far ? "unlike the whole archive" :
      facts.novelty === null ? "not known yet" : facts.novelty.toFixed(2)],
    ["quality", facts.quality.toFixed(2)], ["path", facts.path], ["SHA-256", facts.sha256],
  ];
  byId("viewer-facts").replaceChildren(...known.flatMap(([name, value]) => [
    element("dt", {textContent: name}), element("dd", {textContent: value})]));
  actions(facts);
  explain(facts);
}

function actions(facts) {
  const mark = markOf(facts.sha256);
  const gone = ON_GROUND.includes(facts.state);
  const button = (name, on, toggle, disabled, key) => {
    const made = element("button", {type: "button", textContent: name, disabled,
      title: `${name} (${key})`, onclick: () => toggle(facts)});
    made.setAttribute("aria-pressed", on);
    return made;
  };
  byId("viewer-actions").replaceChildren(
    button("Pin", mark === "pin", toggles.pin, gone, "P"),
    button("Hold", mark === "hold", toggles.hold, gone, "H"),
    button("More like this", targetWeight(facts.sha256) > 0, toggles.like,
      facts.cluster === null, "M"));
}

async function explain(facts) {
  const mine = ++turn;
  try {
    const known = await ask("/api/image/" + facts.image);
    if (mine !== turn) return;
    // The first line repeats the path and the hash.
    byId("viewer-now").textContent = known.explained.now.slice(1).join("\n");
    byId("viewer-draft").textContent = known.explained.draft.slice(1).join("\n");
  } catch (error) {
    say(error.message, true);
  }
}

byId("viewer-before").addEventListener("click", () => go(-1));
byId("viewer-after").addEventListener("click", () => go(1));
dialog.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches("pre")) return;
  const keys = {ArrowLeft: () => go(-1), ArrowRight: () => go(1), p: toggles.pin, h: toggles.hold,
    m: toggles.like};
  const action = keys[event.key] || keys[event.key.toLowerCase()];
  if (!action) return;
  event.preventDefault();
  event.stopPropagation();
  action(list[place]);
});
onState(() => {
  if (store.state && dialog.open) {
    const held = document.activeElement && document.activeElement.textContent;
    actions(list[place]);
    [...byId("viewer-actions").children].find((one) => one.textContent === held)?.focus();
    explain(list[place]);
  }
});
