"use strict";
(() => {
  const form = document.querySelector("form.tools");
  const list = document.getElementById("rows");
  const rows = [...list.children];
  const place = new Map(rows.map((row, index) => [row, index]));
  const number = (row, key, missing) => (key in row.dataset ? Number(row.dataset[key]) : missing);
  const orders = {
    "": (a, b) => place.get(a) - place.get(b),
    name: (a, b) => (a.dataset.name < b.dataset.name ? -1 : 1),
    error: (a, b) => number(b, "error", Infinity) - number(a, "error", Infinity) || place.get(a) - place.get(b),
    inliers: (a, b) => number(a, "inliers", 0) - number(b, "inliers", 0) || place.get(a) - place.get(b),
  };
  const value = (name) => (form.elements[name] ? form.elements[name].value : "");
  function show() {
    const text = value("text").toLowerCase(), status = value("status"), group = value("group");
    let shown = 0;
    for (const row of rows) {
      const data = row.dataset;
      const fits = data.name.toLowerCase().includes(text) && (!group || data.group === group)
        && (!status || (status === "wrong" ? "wrong" in data : data.status === status));
      row.hidden = !fits;
      shown += fits;
    }
    form.querySelector("[role=status]").textContent = shown === rows.length ? "" : `${shown} of ${rows.length}`;
  }
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", show);
  form.elements.sort.addEventListener("change", () => list.append(...[...rows].sort(orders[value("sort")])));
  form.hidden = false;
  show(); // a browser may have kept what was chosen before a reload
  list.append(...[...rows].sort(orders[value("sort")]));
})();
