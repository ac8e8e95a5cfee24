"use strict";
// Sort any table by a click on its head; in the table of facts, choose the patch and what is shown.
(() => {
  const numeric = /^[+\-−]?\d/;
  const collator = new Intl.Collator(undefined, { numeric: true, sensitivity: "base" });

  // A number at the start of a cell counts as one ("0.56 [0.51, 0.61]"); all else is compared as text, blanks last.
  function key(row, column) {
    const text = row.cells[column].textContent.trim();
    if (text === "" || text === "–" || text === "undefined") return null;
    return numeric.test(text) ? parseFloat(text.replace("−", "-").replaceAll(",", "")) : text;
  }

  function compare(a, b, sign) {
    if (a === null || b === null) return (a === null) - (b === null);
    if (typeof a === "number" && typeof b === "number") return sign * (a - b);
    return sign * collator.compare(String(a), String(b));
  }

  function sort(table, column, direction) {
    const body = table.tBodies[0];
    const sign = direction === "ascending" ? 1 : -1;
    const keyed = [...body.rows].map((row, place) => ({ row, place, key: key(row, column) }));
    keyed.sort((a, b) => compare(a.key, b.key, sign) || a.place - b.place);
    body.append(...keyed.map(({ row }) => row));
    for (const [place, head] of [...table.tHead.rows[0].cells].entries()) {
      if (place === column) head.setAttribute("aria-sort", direction);
      else head.removeAttribute("aria-sort");
    }
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    for (const [column, head] of [...table.tHead.rows[0].cells].entries()) {
      const button = document.createElement("button");
      button.type = "button";
      button.title = "sort";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () =>
        sort(table, column, head.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending"));
    }
  }

  function factsOf(box) {
    const controls = box.querySelector(".controls");
    const [choice, status, words] = controls.querySelectorAll("[name]");
    const rows = [...box.querySelectorAll("tbody tr")];
    const { texts, statuses, choices } = JSON.parse(box.querySelector("script").textContent);
    const [said, recovery, fate] = [5, 6, 7];  // the columns that change with the patch

    function show({ answers, correct, recovery: recovered, statuses: fates, told }) {
      for (const [place, row] of rows.entries()) {
        row.cells[said].firstElementChild.textContent = texts[answers[place]];
        row.cells[said].className = correct[place] ? "right" : "wrong";
        row.cells[recovery].textContent = recovered[place] === null ? "–" : recovered[place].toFixed(2);
        row.cells[fate].textContent = statuses[fates[place]];
      }
      box.querySelector(".label").textContent = choice.selectedOptions[0].textContent;
      box.querySelector(".sentence").textContent = told;
    }

    function filter() {
      const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        const text = row.textContent.toLowerCase();
        const fits = wanted.every((word) => text.includes(word))
          && (!status.value || row.cells[fate].textContent === status.value);
        row.hidden = !fits;
        shown += fits;
      }
      const told = box.querySelector(".shown");
      if (told) told.textContent = shown < rows.length ? `Shown: ${shown} of ${rows.length} facts.` : "";
    }

    controls.hidden = false;
    for (const input of [choice, status]) input.closest("label").hidden = !choices.length;
    words.addEventListener("input", filter);
    status.addEventListener("change", filter);
    choice.addEventListener("change", () => {
      show(choices[Number(choice.value)]);
      filter();
    });
  }

  for (const box of document.querySelectorAll(".facts-of")) factsOf(box);
})();
