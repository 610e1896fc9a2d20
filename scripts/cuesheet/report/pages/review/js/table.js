// The table of subtasks: start, end and label of each can be typed.
//
// Rows are reused while their number stays the same. If a change of one label replaced all rows, the
// field that was clicked next would vanish, and what is typed into it would act as keyboard shortcuts.
"use strict";

(function (app) {
  const { make } = app;

  /** Seconds of "12.5" or "1:02.5"; null if it is not a time. */
  app.parseTime = function (text) {
    const match = text.trim().match(/^(?:(?:(\d+):)?(\d+):)?(\d+(?:[.,]\d*)?)\s*s?$/);
    if (!match) return null;
    const [hours, minutes, seconds] = match.slice(1).map((part) => Number((part ?? "0").replace(",", ".")));
    return 3600 * hours + 60 * minutes + seconds;
  };

  app.Table = class {
    /**
     * `on`: choose(index), typing(index, text), rename(index, text), cancel(), merge(index),
     * remove(index), and retime(boundary, seconds), where boundary i is between subtasks i - 1 and i.
     */
    constructor(on) {
      this.on = on;
      this.body = app.byId("subtasks").tBodies[0];
    }

    open(episode) {
      this.episode = episode;
      app.byId("subtasks").classList.toggle("sampled", Boolean(episode.samples));
      this.body.replaceChildren();
    }

    /** `agreement(subtask)`: of the samples of which the model's subtask was merged, or null. */
    draw(segmentation, agreement) {
      if (this.body.rows.length !== segmentation.length) this.body.replaceChildren(...segmentation.map((_, index) => this.row(index, segmentation.length)));
      segmentation.forEach((subtask, index) => this.fill(this.body.rows[index], subtask, agreement(subtask)));
    }

    row(index, count) {
      const number = index + 1;
      return make(
        "tr",
        { "data-row": index, onclick: (event) => !event.target.matches("button, .time") && this.on.choose(index) },
        make("td", {}, make("i", { class: "swatch" })),
        make("td", { class: "num start" }, this.time(index, `Start of subtask ${number} in seconds`, index === 0)),
        make("td", { class: "num end" }, this.time(index + 1, `End of subtask ${number} in seconds`, index === count - 1)),
        this.episode.samples ? make("td", { class: "num mono agreed" }) : null,
        make("td", { class: "label" }, this.field({
          maxlength: 120, "aria-label": `Label of subtask ${number}`,
          oninput: (event) => this.on.typing(index, event.target.value),
          onchange: (event) => this.on.rename(index, event.target.value),
        })),
        make("td", { class: "tools" },
          make("button", { title: "Merge with the next subtask (m)", disabled: index === count - 1, onclick: () => this.on.merge(index) }, "Merge ↓"),
          make("button", { title: "Delete: the previous subtask takes its frames", "aria-label": `Delete subtask ${number}`, disabled: count < 2, onclick: () => this.on.remove(index) }, "✕"))
      );
    }

    time(boundary, name, fixed) {
      return this.field({
        class: "time mono", "aria-label": name, disabled: fixed, inputmode: "decimal", autocomplete: "off",
        onchange: (event) => this.on.retime(boundary, app.parseTime(event.target.value)),
      });
    }

    /** A text field that Enter accepts; Escape restores its former value. */
    field(attributes) {
      return make("input", {
        ...attributes,
        onfocus: (event) => (event.target.dataset.before = event.target.value),
        onkeydown: (event) => {
          if (event.key === "Escape") {
            event.target.value = event.target.dataset.before;
            event.target.blur();
            this.on.cancel();
          } else if (event.key === "Enter") event.target.blur();
        },
      });
    }

    fill(row, subtask, agreement) {
      row.querySelector(".swatch").style.background = `var(--c${app.colorOf(subtask.label)})`;
      this.fillTimes(row, subtask);
      row.querySelector(".label input").value = subtask.label;
      const cell = row.querySelector(".agreed");
      if (!cell) return;
      cell.textContent = agreement === null ? "–" : `≈ ${agreement.toFixed(2)}`;
      cell.title = agreement === null ? "Changed by hand, so the samples do not apply" : `Agreement of ${this.episode.samples} samples (0 to 1)`;
      cell.classList.toggle("low", agreement !== null && app.isLow(agreement));
    }

    fillTimes(row, subtask) {
      row.querySelector(".start input").value = app.timeOf(this.episode, subtask.start).toFixed(2);
      row.querySelector(".end input").value = app.timeOf(this.episode, subtask.end).toFixed(2);
    }

    /** Show the times of a boundary that is being dragged. */
    drawTimes(segmentation) {
      segmentation.forEach((subtask, index) => this.fillTimes(this.body.rows[index], subtask));
    }

    choose(index) {
      const { activeElement } = document;
      for (const row of this.body.rows) {
        const chosen = Number(row.dataset.row) === index;
        row.classList.toggle("chosen", chosen);
        if (chosen && !this.body.contains(activeElement)) this.reveal(row);
      }
    }

    /** Scroll the table, not the page, to a row. */
    reveal(row) {
      const box = app.byId("subtasks").parentElement;
      if (row.offsetTop < box.scrollTop) box.scrollTop = row.offsetTop;
      else if (row.offsetTop + row.offsetHeight > box.scrollTop + box.clientHeight) box.scrollTop = row.offsetTop + row.offsetHeight - box.clientHeight;
    }

    focus(index) {
      const input = this.body.rows[index]?.querySelector(".label input");
      input?.focus();
      input?.select();
    }
  };
})(window.Cuesheet);
