// A selection as a file: CSV for people and programs, or orders as the rover's orders.py reads them.

const YAML_MOST_BYTES = 64000;  // what the rover reads of YAML
const CSV_MOST_ORDERS = 10000;  // and of a CSV file
const WEIGHT_MOST = 1000;

// RFC 4180: a cell with a comma, a quote or a line break stands in quotes.
const csvCell = (value) => /[",\r\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"`
  : String(value);
const csvLine = (cells) => cells.map(csvCell).join(",") + "\r\n";

// No spreadsheet may take a label for a formula.
const spreadsheetSafe = (text) => /^[=+\-@\t\r]/.test(text) ? "'" + text : text;

function selectionCsv(archive, images) {
  const lines = [csvLine(["sha256", "cluster", "label", "distance", "novelty", "far", "quality",
    "reason", "near_duplicates", "captured_at", "bytes", "path"])];
  for (const image of images) {
    const cluster = archive.clusters[archive.cluster[image]];
    lines.push(csvLine([
      archive.hash(image), cluster.number, spreadsheetSafe(cluster.label),
      archive.distance[image].toFixed(5), archive.novelty[image].toFixed(4),
      archive.far[image] ? "yes" : "no", archive.factor[image].toFixed(3),
      spreadsheetSafe(archive.reasons[image] || ""),
      archive.group[image] < 0 ? "" : archive.group[image], isoTime(archive.captured[image]),
      archive.bytes[image], spreadsheetSafe(printablePath(archive.path(image)))]));
  }
  return lines.join("");
}

// Orders for these images: {name, text} of a file, or {why} there can be none. As YAML, one order
// for all of them, while that is small enough; else as CSV, a line each. An id is never given twice:
// to the rover two orders of one id are one order.
function orderFile(archive, images, action, weight, now) {
  if (!images.length) return {why: "nothing is selected"};
  if (action === "more_like" && !(weight >= 0 && weight <= WEIGHT_MOST)) {
    return {why: `a weight is a number from 0 to ${WEIGHT_MOST}`};
  }
  weight = Number(weight.toFixed(6));  // the rover reads no more than nine decimals
  const id = "r" + now.toISOString().replace(/[-:.Z]/g, "");
  const targets = images.map((image) => archive.hash(image).slice(0, archive.named));
  const name = `orders-${id.slice(1, 16)}-${action}`;
  const yaml = action === "more_like"
    ? `- {id: ${id}, more_like: {${targets.map((hash) => `${hash}: ${weight}`).join(", ")}}}\n`
    : `- {id: ${id}, ${action}: [${targets.join(", ")}]}\n`;
  if (yaml.length <= YAML_MOST_BYTES) return {name: name + ".yaml", text: yaml};
  if (images.length > CSV_MOST_ORDERS) {
    return {why: `the rover reads at most ${whole(CSV_MOST_ORDERS)} orders from one file`};
  }
  const value = action === "more_like" ? "," + weight : "";
  return {name: name + ".csv", text: "id,action,target,value\n" + targets.map(
    (hash, at) => `${id}-${at + 1},${action},${hash}${value}\n`).join("")};
}

function saveFile(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], {type}));
  make("a", {href: url, download: name}).click();
  setTimeout(() => URL.revokeObjectURL(url), 60000);  // the browser may read it a moment later
}
