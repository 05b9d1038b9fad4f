"use strict";
// a click enlarges a row of pictures; arrow keys go to those beside it, Escape closes
(() => {
  const dialog = document.querySelector("dialog");
  let rows = [], at = 0;

  function show(row) {
    const list = row.closest(".lrp-neurons") || row.parentElement;
    rows = [...list.querySelectorAll("figure.lrp-zoom")];
    move(rows.indexOf(row));
    if (!dialog.open) dialog.showModal();
  }

  function move(to) {
    at = (to + rows.length) % rows.length;
    const large = rows[at].cloneNode(true);
    large.removeAttribute("tabindex");
    dialog.querySelector("div").replaceChildren(large);
  }

  document.addEventListener("click", (event) => {
    const neuron = event.target.closest("svg a");
    const row = neuron ? document.querySelector(`${neuron.getAttribute("href")} figure`) : event.target.closest("figure.lrp-zoom");
    if (row && !dialog.contains(row)) {
      event.preventDefault();
      show(row);
    }
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target.matches("figure.lrp-zoom")) show(event.target);
    if (dialog.open && event.key === "ArrowLeft") move(at - 1);
    if (dialog.open && event.key === "ArrowRight") move(at + 1);
  });
  dialog.addEventListener("click", (event) => {
    const step = { previous: -1, next: 1 }[event.target.value];
    if (step) {
      event.preventDefault();
      move(at + step);
    } else if (event.target === dialog) dialog.close();  // beside it
  });
})();
