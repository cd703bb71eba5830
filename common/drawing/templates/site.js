"use strict";
// Sorts a table by a column: numbers by value, what is no number after them, by its letters.
function value(row, column) {
  const text = row.cells[column].textContent.trim().toLowerCase();
  const number = /^[+\-−]?\d[\d.]*/.exec(text);
  return { number: number ? parseFloat(number[0].replace("−", "-")) : null, text: text };
}
function compare(a, b) {
  if ((a.number === null) !== (b.number === null)) return a.number === null ? 1 : -1;
  if (a.number !== b.number) return a.number - b.number;
  return a.text < b.text ? -1 : Number(a.text > b.text);
}
function sort(table, column) {
  const heads = [...table.tHead.rows[0].cells];
  const down = heads[column].getAttribute("aria-sort") === "ascending";
  heads.forEach((head) => head.removeAttribute("aria-sort"));
  heads[column].setAttribute("aria-sort", down ? "descending" : "ascending");
  const keyed = [...table.tBodies[0].rows].map((row) => [value(row, column), row]);
  keyed.sort((a, b) => (down ? -1 : 1) * compare(a[0], b[0]));
  table.tBodies[0].append(...keyed.map(([, row]) => row));
}
// A link to a list that is folded up opens it.
function open() {
  const found = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (found && found.tagName === "DETAILS") found.open = true;
}
document.querySelectorAll("table.sortable").forEach((table) => {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => sort(table, column));
  });
});
window.addEventListener("hashchange", open);
open();
