// Small helpers: elements whose text is only ever text, numbers for people, and the server's API.

export function byId(id) {
  return document.getElementById(id);
}

// element("p", {className: "quiet"}, "text", child): properties are set as such, never parsed.
export function element(name, properties, ...children) {
  const made = Object.assign(document.createElement(name), properties || {});
  for (const child of children) {
    if (child !== null && child !== undefined) made.append(child);
  }
  return made;
}

export function inUnits(bytes) {
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (bytes >= size) return (bytes / size).toFixed(1) + " " + unit;
  }
  return bytes + " B";
}

export function many(count, one) {
  return count.toLocaleString("en") + " " + one + (count === 1 ? "" : "s");
}

// A colour for each cluster; neighbours differ, as the golden angle has it.
export function colourOf(cluster) {
  return `hsl(${Math.round(24 + cluster * 137.508) % 360} 45% 62%)`;
}

let fading;
export function say(text, wrong) {
  const said = byId("said");
  // What is modal covers everything that is not within it.
  ([...document.querySelectorAll("dialog[open]")].pop() || document.body).append(said);
  said.textContent = text;
  said.className = text ? (wrong ? "shown wrong" : "shown") : "";
  clearTimeout(fading);
  if (text) fading = setTimeout(() => say(""), wrong ? 12000 : 5000);
}

export async function ask(path) {
  return answer(await fetch(path));
}

export async function tell(path, body) {
  return answer(await fetch(path, {
    method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(body || {}),
  }));
}

async function answer(response) {
  const said = await response.json();
  if (said.error) throw new Error(said.error);
  return said;
}
