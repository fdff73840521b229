// What is asked for, image by image, and what would be written: the order file and the policy.

import {byId, element, many} from "./dom.js";
import {change, onState, targetWeight} from "./store.js";
import {tile} from "./tiles.js";
import {weightControl} from "./wall.js";

const MARKS = {pin: "pinned", hold: "held", free: "let go"};

function lines(box, difference) {
  box.replaceChildren(...difference.map(([sign, text]) => element("span", {
    className: sign === "+" ? "added" : sign === "-" ? "removed" : "same",
    textContent: text + "\n"})));
}

function asked(state) {
  const marks = state.marks.filter((one) => one.mark !== one.was || one.mark !== "free");
  byId("asked").hidden = !marks.length && !state.targets.length;
  const place = controls().indexOf(document.activeElement);
  const focused = document.activeElement?.ariaLabel;
  byId("asked-list").replaceChildren(
    ...state.targets.map((facts) => {
      const weigh = weightControl("images like " + facts.name, () => targetWeight(facts.sha256),
        (weight) => change("more_like", facts.sha256, weight));
      weigh.show(facts.weight);
      return chip(facts, state.targets, "more like this", weigh);
    }),
    ...marks.map((facts) => chip(facts, marks, MARKS[facts.mark], facts.mark === "free" ? null :
      letGo(facts))));
  if (place < 0) return;
  // The same control, or what stands in its place now.
  const now = controls();
  (now.find((one) => one.ariaLabel === focused) || now[Math.min(place, now.length - 1)]
    || byId("next")).focus();
}

function letGo(facts) {
  const word = facts.mark === "pin" ? "Unpin" : "Release";
  const made = element("button", {type: "button", textContent: word,
    onclick: () => change("mark", facts.sha256, () => "free")});
  made.setAttribute("aria-label", `${word} ${facts.name}`);
  return made;
}

function controls() {
  return [...byId("asked-list").querySelectorAll("button:not(:disabled), input")];
}

function chip(facts, among, words, control) {
  return element("div", {className: "chip queue"}, tile(facts, () => among),
    element("div", {}, element("span", {className: "name", textContent: facts.name}),
      element("span", {className: "quiet", textContent: words})), control);
}

onState((state) => {
  const {orders, policy} = state;
  asked(state);
  byId("order-bytes").textContent = orders.text ? many(orders.bytes, "byte") : "";
  byId("order-about").textContent = !orders.text ? state.unsaid.length
    ? "No order brings the rover there:" : "Nothing to order: the rover goes by this already."
    : `${orders.path}, ` + (orders.last ? `${orders.last} bytes when it was last written`
      : "not written yet");
  lines(byId("order-text"), orders.difference);
  byId("order-text").hidden = !orders.difference.length;
  byId("unsaid").replaceChildren(...state.unsaid.map((words) => element("li", {
    textContent: "Orders cannot say " + words + ". Uplink the policy file for that."})));
  const changes = policy.difference.filter(([sign]) => sign !== " ");
  byId("policy-about").textContent = `${policy.path}, ${many(policy.bytes, "byte")}: ` +
    (changes.length ? `${many(changes.length, "line")} to change` : "as saved");
  lines(byId("policy-text"), policy.difference.filter((line, place, all) =>
    all.slice(Math.max(0, place - 2), place + 3).some(([sign]) => sign !== " ")));
  byId("lost").textContent = policy.lost.length
    ? "These comments of the file cannot be kept: " + policy.lost.join("  ") : "";
});
