"use strict";
const controls = document.getElementById("controls");
const [failures, must] = controls.querySelectorAll("input");
const shown = controls.querySelector("output");
const rows = document.querySelectorAll("#clauses details");
const words = (element, name) => element.dataset[name].split(" ");

function apply() {
  for (const element of document.querySelectorAll("[data-levels]")) {
    const wrong = must.checked && !words(element, "levels").includes("must");
    const failed = element.dataset.failed === undefined ? ["must"] : words(element, "failed");
    const fine = failures.checked && !failed.some((level) => level && (!must.checked || level === "must"));
    element.hidden = wrong || fine;
  }
  for (const group of document.querySelectorAll("#clauses section")) {
    group.hidden = !group.querySelector("details:not([hidden])");
  }
  const left = [...rows].filter((row) => !row.hidden).length;
  shown.textContent = left === rows.length ? "" : `${left} of ${rows.length} clauses shown`;
}

function reveal() {
  const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let node = target; node; node = node.parentElement) {
    node.hidden = false;
    if (node.tagName === "DETAILS") node.open = true;
  }
  target.scrollIntoView();
}

controls.hidden = false;
controls.addEventListener("change", apply);
controls.querySelector("button").addEventListener("click", () => {
  const open = ![...rows].some((row) => row.open && !row.hidden);
  for (const row of rows) row.open = open && !row.hidden;
});
addEventListener("hashchange", reveal);
apply();
reveal();
