// The table of subtasks, in which a person types.
//
// Rows stay as long as their number does: the change of one label must not replace the field that
// was clicked next, or what is typed then would go nowhere (or be taken for keys of the page).
"use strict";

(function (app) {
  const { make } = app;

  app.Table = class {
    /** `on`: choose(index), typing(index, text), rename(index, text), merge(index), remove(index). */
    constructor(on) {
      this.on = on;
      this.body = app.byId("subtasks").tBodies[0];
    }

    open(episode) {
      this.episode = episode;
      this.body.replaceChildren();
    }

    /** `agreement(part)`: of the samples that the model's subtask was made of, or null. */
    draw(cover, agreement) {
      if (this.body.rows.length !== cover.length) this.body.replaceChildren(...cover.map((_, index) => this.row(index, cover.length)));
      cover.forEach((part, index) => this.fill(this.body.rows[index], part, agreement(part)));
    }

    row(index, count) {
      return make(
        "tr",
        { "data-row": index, onclick: (event) => event.target.tagName !== "BUTTON" && this.on.choose(index) },
        make("td", {}, make("i", { class: "swatch" })),
        make("td", { class: "num mono start" }),
        make("td", { class: "num mono end" }),
        this.episode.samples ? make("td", { class: "num mono agreed" }) : null,
        make("td", { class: "label" }, make("input", {
          maxlength: 120, "aria-label": `Label of subtask ${index + 1}`,
          oninput: (event) => this.on.typing(index, event.target.value),
          onchange: (event) => this.on.rename(index, event.target.value),
          onkeydown: (event) => { if (event.key === "Enter" || event.key === "Escape") event.target.blur(); },
        })),
        make("td", { class: "tools" },
          make("button", { title: "Merge with the next (m)", disabled: index === count - 1, onclick: () => this.on.merge(index) }, "Merge ↓"),
          make("button", { title: "Delete; its neighbor takes its time", disabled: count < 2, onclick: () => this.on.remove(index) }, "✕"))
      );
    }

    fill(row, part, agreement) {
      const { timestamps, length, end_s: end, samples } = this.episode;
      row.querySelector(".swatch").style.background = `var(--c${app.colorOf(part.label)})`;
      row.querySelector(".start").textContent = timestamps[part.start].toFixed(2);
      row.querySelector(".end").textContent = (part.end < length ? timestamps[part.end] : end).toFixed(2);
      row.querySelector("input").value = part.label;
      const cell = row.querySelector(".agreed");
      if (!cell) return;
      cell.textContent = agreement === null ? "–" : `≈ ${agreement.toFixed(2)}`;
      cell.title = agreement === null ? "changed: no agreement of samples" : `agreement of ${samples} samples, of 0 to 1`;
      cell.classList.toggle("low", agreement !== null && app.isLow(agreement));
    }

    choose(index) {
      for (const row of this.body.rows) row.classList.toggle("chosen", Number(row.dataset.row) === index);
    }

    focus(index) {
      const input = this.body.rows[index]?.querySelector("input");
      input?.focus();
      input?.select();
    }
  };
})(window.Cuesheet);
