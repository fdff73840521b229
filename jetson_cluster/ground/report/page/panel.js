// The selection at the side: its pictures, and what can be made of it.

const PANEL_TILE = 54;

class Panel {
  constructor(archive, atlas, choices, open) {
    Object.assign(this, {archive, choices});
    this.rows = new Rows(byId("selected-rows"), archive, atlas, choices, open, PANEL_TILE);
    byId("select-shown").addEventListener("click", () => this.selectShown());
    byId("select-none").addEventListener("click", () => choices.select([], "replace"));
    byId("save-csv").addEventListener("click", () => saveFile(
      "selection.csv", selectionCsv(archive, this.images), "text/csv"));
    byId("save-orders").addEventListener("click", () => {
      const file = this.orders();
      if (file.text) saveFile(file.name, file.text, "text/plain");
    });
    byId("order-action").addEventListener("change", () => this.drawOrders());
    byId("order-weight").addEventListener("input", () => this.drawOrders());
    byId("exports").addEventListener("submit", (event) => event.preventDefault());
    choices.addEventListener("selected", () => this.draw());
    this.draw();
  }

  selectShown() {
    this.choices.select(this.choices.listOf(this.choices.shown), "add");
  }

  orders() {
    return orderFile(this.archive, this.images, byId("order-action").value,
      byId("order-weight").valueAsNumber, new Date());
  }

  draw() {
    this.images = this.choices.listOf(this.choices.selected);
    byId("selected-count").textContent = this.images.length
      ? `${counted(this.images.length, "image")} selected` : "Nothing selected";
    byId("select-none").disabled = byId("save-csv").disabled = !this.images.length;
    const {scrollTop} = this.rows.scroller;
    this.rows.show(this.images.length ? [{images: this.images}] : []);
    this.rows.scroller.scrollTop = scrollTop;
    this.drawOrders();
  }

  drawOrders() {
    byId("order-weight-label").hidden = byId("order-action").value !== "more_like";
    const file = this.orders();
    byId("save-orders").disabled = Boolean(file.why);
    byId("order-note").textContent = !this.images.length
      ? "Select images on the map or in the galleries; the file tells the rover what to do with them."
      : file.why || `${file.name.split(".").pop().toUpperCase()}, ${
        whole(file.text.length)} bytes to uplink. The rover must have the images: it knows them by `
        + "their hashes.";
  }
}
