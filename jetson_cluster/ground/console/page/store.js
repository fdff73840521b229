// The state that the server gave last, and the only way to change it.

import {ask, say, tell} from "./dom.js";

const listeners = [];
export const store = {state: null, clusters: []};

export function onState(listener) {
  listeners.push(listener);
}

function take(state) {
  store.state = state;
  for (const listener of listeners) listener(state);
}

export async function begin() {
  [store.clusters] = [await ask("/api/clusters")];
  take(await ask("/api/state"));
}

// Changes go one after the other: each is answered by the state that follows from it, and the next
// is made of that one, so that two quick clicks on + are two steps.
let line = Promise.resolve();
function post(path, body = () => ({})) {
  line = line.then(async () => {
    try {
      take(await tell(path, body()));
      return true;
    } catch (error) {
      say(error.message, true);
      take(store.state); // what was typed and refused is shown as it stands
      return false;
    }
  });
  return line;
}

// `value` is a function, asked when it is this change's turn.
export function change(kind, target, value) {
  return post("/api/change", () => ({kind, target: String(target), value: value()}));
}

export const undo = () => post("/api/undo");
export const redo = () => post("/api/redo");

export async function save() {
  if (await post("/api/save")) {
    const {policy, orders, changedOutside} = store.state;
    if (changedOutside) {
      say(changedOutside, true);
      return;
    }
    say(`Saved ${policy.path} (${policy.bytes} bytes)` + (orders.last
      ? ` and ${orders.path} (${orders.last} bytes)` : ""));
  }
}

export function labelOf(cluster) {
  return store.state.labels[cluster] || "cluster " + cluster;
}

export function weightOf(cluster) {
  return store.state.weights[cluster] ?? 1;
}

export function markOf(sha256) {
  const found = store.state.marks.find((one) => one.sha256 === sha256);
  return found ? found.mark : "free";
}

export function targetWeight(sha256) {
  const found = store.state.targets.find((one) => one.sha256 === sha256);
  return found ? found.weight : 0;
}

// Named by the run: another console at this port has other pictures by the same numbers.
export function pictureOf(image) {
  return `/picture/${store.state.run}/${image}`;
}

export const toggles = {
  pin: ({sha256}) => change("mark", sha256, () => markOf(sha256) === "pin" ? "free" : "pin"),
  hold: ({sha256}) => change("mark", sha256, () => markOf(sha256) === "hold" ? "free" : "hold"),
  like: ({sha256}) => change("more_like", sha256, () => targetWeight(sha256) ? 0 : 1),
};
