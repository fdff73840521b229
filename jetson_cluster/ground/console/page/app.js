// Begins, and what belongs to the page as a whole: its head, its keys, its dialogs.

import "./wall.js";
import "./pass.js";
import "./uplink.js";
import {byId, element, many, say} from "./dom.js";
import {openSearch} from "./members.js";
import {begin, onState, redo, save, undo} from "./store.js";

onState((state) => {
  const counts = Object.entries(state.counts).filter(([name, count]) => count || name === "queued");
  byId("about").textContent = [state.catalog, ...counts.map(([name, count]) =>
    `${count.toLocaleString("en")} ${name}`), many(state.passes, "pass").replace("passs", "passes")]
    .join(" · ");
  byId("notes").replaceChildren(...state.notes.map((text) => element("p", {textContent: text})));
  byId("undo").disabled = !state.canUndo;
  byId("redo").disabled = !state.canRedo;
  byId("save").disabled = !state.stale;
  byId("save").textContent = state.stale ? "Save" : "Saved";
  document.title = (state.stale ? "• " : "") + "Console";
});

byId("undo").addEventListener("click", undo);
byId("redo").addEventListener("click", redo);
byId("save").addEventListener("click", save);
byId("search").addEventListener("submit", (event) => {
  event.preventDefault();
  const words = byId("words").value.trim();
  if (words) openSearch(words);
});
document.querySelectorAll("[data-close]").forEach((button) =>
  button.addEventListener("click", () => button.closest("dialog").close()));
document.querySelectorAll("dialog").forEach((dialog) =>
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // beside it
  }));

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input, select, textarea");
  const key = event.key.toLowerCase();
  const held = event.ctrlKey || event.metaKey;
  if (held && key === "s") {
    document.activeElement.blur(); // what is being typed counts
    save();
  } else if (held && !typing && (key === "y" || (key === "z" && event.shiftKey))) {
    redo();
  } else if (held && !typing && key === "z") {
    undo();
  } else if (key === "/" && !typing && !document.querySelector("dialog[open]")) {
    byId("words").focus();
  } else {
    return;
  }
  event.preventDefault();
});

begin().catch((error) => say("The console does not answer: " + error.message, true));
