// The archive as content.py packed it: columns by image. Images are in the order of their clusters,
// the most typical first, so that a cluster is a range of them.

const COLUMN_TYPES = {
  u1: Uint8Array, u2: Uint16Array, u4: Uint32Array, i4: Int32Array, f4: Float32Array,
  f8: Float64Array,
};

function unpacked(text, type) {
  const raw = atob(text);
  const bytes = new Uint8Array(raw.length);
  for (let at = 0; at < raw.length; at++) bytes[at] = raw.charCodeAt(at);
  return new COLUMN_TYPES[type](bytes.buffer);
}

class Archive {
  constructor(told) {
    Object.assign(this, told);  // title, made, space, map, sheets, clusters, names, reasons, ...
    const columns = {
      folder: "u4", sha256: "u1", bytes: "f8", pixels: "i4", captured: "f8", distance: "f4",
      novelty: "f4", far: "u1", factor: "f4", group: "i4", place: "u2", thumbnails: "u1",
    };
    for (const [name, type] of Object.entries(columns)) this[name] = unpacked(told[name], type);
    this.x = new Float32Array(this.count);
    this.y = new Float32Array(this.count);
    this.cluster = new Uint16Array(this.count);
    for (let image = 0; image < this.count; image++) {
      this.x[image] = this.place[2 * image] / 65535;
      this.y[image] = this.place[2 * image + 1] / 65535;
    }
    for (const cluster of this.clusters) {
      this.cluster.fill(cluster.number, cluster.start, cluster.start + cluster.size);
    }
  }

  path(image) {
    const folder = this.folders[this.folder[image]];
    return folder && !folder.endsWith("/") ? `${folder}/${this.names[image]}`
      : folder + this.names[image];
  }

  hash(image) {
    let text = "";
    for (let at = 32 * image; at < 32 * image + 32; at++) text += hex(this.sha256[at], 2);
    return text;
  }

  clusterName(number) {
    const label = this.clusters[number].label;
    return label ? `${number} · ${legible(label)}` : `Cluster ${number}`;
  }

  members(number) {
    const {start, size} = this.clusters[number];
    return Array.from({length: size}, (_, at) => start + at);
  }

  // Groups of near-duplicates, the largest first.
  groups() {
    const found = new Map();
    for (let image = 0; image < this.count; image++) {
      const group = this.group[image];
      if (group < 0) continue;
      if (!found.has(group)) found.set(group, []);
      found.get(group).push(image);
    }
    return [...found.values()].sort((one, other) => other.length - one.length || one[0] - other[0]);
  }
}
