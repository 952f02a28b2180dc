"use strict";
// The partition table: sorted by a click on a heading, searched, and shown a page at a time.
(() => {
  const { columns, rows, size } = JSON.parse(document.getElementById("rows").textContent);
  const byId = (id) => document.getElementById(id);
  const table = byId("table"), body = table.tBodies[0];
  const stateAt = columns.indexOf("state");
  const texts = rows.map((row) => row.map((v) => (v === null ? "" : String(v))).join("\n").toLowerCase());
  let order = rows.map((_, i) => i), start = 0, sortedBy = null, sign = 1;

  const shown = (value) =>
    value === null ? "" : Number.isInteger(value) ? value.toLocaleString("en") : String(value);

  const compare = (a, b) => {
    // Missing values come last, whichever the direction.
    const x = rows[a][sortedBy], y = rows[b][sortedBy];
    if (x === y) return a - b;
    if (x === null || x === "") return 1;
    if (y === null || y === "") return -1;
    const less = typeof x === "number" ? x - y : x.localeCompare(y, "en", { numeric: true });
    return sign * less || a - b;
  };

  const draw = () => {
    const page = order.slice(start, start + size).map((i) => {
      const line = document.createElement("tr");
      line.dataset.state = rows[i][stateAt];
      rows[i].forEach((value, j) => {
        const cell = line.insertCell();
        cell.className = columns[j];
        cell.textContent = shown(value);
      });
      return line;
    });
    body.replaceChildren(...page);
    const n = order.length.toLocaleString("en"), all = rows.length.toLocaleString("en");
    byId("found").textContent = order.length === rows.length ? `${all} rows` : `${n} of ${all} rows`;
    byId("where").textContent = `${Math.min(start + 1, order.length)} to ${Math.min(start + size, order.length)} of ${n}`;
    byId("before").disabled = start === 0;
    byId("next").disabled = start + size >= order.length;
    byId("pager").hidden = order.length <= size;
  };

  const choose = () => {
    const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean), state = byId("state").value;
    order = [];
    for (let i = 0; i < rows.length; i++) {
      if ((!state || rows[i][stateAt] === state) && words.every((w) => texts[i].includes(w))) order.push(i);
    }
    if (sortedBy !== null) order.sort(compare);
    start = 0;
    draw();
  };

  table.querySelectorAll("th").forEach((heading, j) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    button.addEventListener("click", () => {
      sign = sortedBy === j ? -sign : 1;
      sortedBy = j;
      table.querySelectorAll("th").forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      choose();
    });
  });
  byId("search").addEventListener("input", choose);
  byId("state").addEventListener("change", choose);
  byId("before").addEventListener("click", () => { start = Math.max(start - size, 0); draw(); });
  byId("next").addEventListener("click", () => { start += size; draw(); });
  document.querySelectorAll(".controls").forEach((controls) => { controls.hidden = false; });
  draw();
})();
