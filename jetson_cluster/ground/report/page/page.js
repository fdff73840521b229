// What every part of the page uses: elements, and numbers, times and paths as people read them.
// Text from files gets into the page as text nodes only, never as HTML.

const byId = (id) => document.getElementById(id);

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "class") element.className = value;
    else if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null) element.setAttribute(key, value);
  }
  element.append(...children);
  return element;
}

const grouped = new Intl.NumberFormat("en");
const whole = (number) => grouped.format(number);
const counted = (number, one, many = one + "s") => `${whole(number)} ${number === 1 ? one : many}`;

function byteSize(bytes) {
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (bytes >= size) return `${(bytes / size).toFixed(bytes < 10 * size ? 1 : 0)} ${unit}`;
  }
  return counted(bytes, "byte");
}

// A time as ISO 8601, UTC; "" if it is unknown. Such a column holds NaN.
const isoTime = (ms) => Number.isFinite(ms)
  ? new Date(ms).toISOString().replace(/\.000Z$/, "Z") : "";
const isoDay = (ms) => isoTime(ms).slice(0, 10);

const hex = (number, digits) => number.toString(16).padStart(digits, "0");

// Bytes of a file's name that are not UTF-8 come as lone surrogates U+DC80..DCFF (Python's
// surrogateescape); they are written as \xNN, as in the rover's queue file.
const LONE = /[\ud800-\udbff][\udc00-\udfff]|[\udc80-\udcff]/g;
const printablePath = (path) => path.replace(LONE, (found) => found.length === 2
  ? found : "\\x" + hex(found.charCodeAt(0) - 0xdc00, 2));

// For the eye: also what would break the line, or turn its direction, is written out.
const legible = (text) => printablePath(text).replace(
  /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]/g,
  (found) => "\\u" + hex(found.charCodeAt(0), 4));

// The file: URL of an absolute path, byte for byte.
function fileUrl(path) {
  const bytes = [];
  const encoder = new TextEncoder();
  let last = 0;
  for (const match of path.matchAll(LONE)) {
    if (match[0].length === 2) continue;
    bytes.push(...encoder.encode(path.slice(last, match.index)), match[0].charCodeAt(0) - 0xdc00);
    last = match.index + 1;
  }
  bytes.push(...encoder.encode(path.slice(last)));
  return "file://" + bytes.map((byte) => /[\w\-.~/]/.test(String.fromCharCode(byte))
    ? String.fromCharCode(byte) : "%" + hex(byte, 2).toUpperCase()).join("");
}

// Calls `work` once before the next frame, however often it is asked for.
function onceAFrame(work) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; work(); });
  };
}

// Work for when nothing else is to be done; not every browser knows when that is.
const whenIdle = globalThis.requestIdleCallback || ((work) => setTimeout(work, 50));
const cancelIdle = globalThis.cancelIdleCallback || clearTimeout;
