// The list of episodes: loaded in chunks, and only what is in sight is in the page.
"use strict";

(function (app) {
  const HEIGHT = 84; // px of an entry, as in review.css
  const BEYOND = 4; // entries drawn above and below what is in sight

  const ORDERS = {
    index: (a, b) => a.index - b.index,
    warnings: (a, b) => b.warnings - a.warnings || a.index - b.index,
    agreement: (a, b) => (a.agreement ?? 2) - (b.agreement ?? 2) || a.index - b.index,
    subtasks: (a, b) => b.subtasks - a.subtasks || a.index - b.index,
    duration: (a, b) => b.duration - a.duration || a.index - b.index,
    task: (a, b) => a.task.localeCompare(b.task) || a.index - b.index,
  };
  const FILTERS = {
    all: () => true,
    unjudged: (entry) => !entry.verdict,
    good: (entry) => entry.verdict === "good",
    bad: (entry) => entry.verdict === "bad",
    warned: (entry) => entry.warnings > 0,
    corrected: (entry) => entry.corrected,
  };

  app.List = class {
    /** `choose(index)` is called when a person chooses an episode. */
    constructor(choose) {
      this.choose = choose;
      this.entries = [];
      this.byIndex = new Map();
      this.shown = [];
      this.chosen = null;
      this.box = app.byId("list");
      this.space = app.byId("list-space");
      this.box.addEventListener("scroll", () => this.draw());
      new ResizeObserver(() => this.draw()).observe(this.box);
      for (const id of ["search", "sort", "filter"]) app.byId(id).addEventListener("input", () => this.refresh());
      app.byId("search").addEventListener("keydown", (event) => {
        if (event.key === "Enter" && this.shown.length) this.choose(this.shown[0].index);
        if (event.key === "Enter" || event.key === "Escape") event.target.blur();
      });
    }

    add(entries) {
      for (const entry of entries) {
        entry.words = `${entry.index} ${entry.task} ${entry.labels.join(" ")}`.toLowerCase();
        this.entries.push(entry);
        this.byIndex.set(entry.index, entry);
      }
      this.refresh();
    }

    update(index, changes) {
      const entry = this.byIndex.get(index);
      if (!entry) return;
      Object.assign(entry, changes);
      this.draw();
    }

    refresh() {
      const words = app.byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
      const keep = FILTERS[app.byId("filter").value];
      this.shown = this.entries.filter((entry) => keep(entry) && words.every((word) => entry.words.includes(word)));
      this.shown.sort(ORDERS[app.byId("sort").value]);
      this.space.style.height = `${this.shown.length * HEIGHT}px`;
      const all = this.entries.length;
      app.byId("counts").textContent =
        this.shown.length === all ? `${all.toLocaleString()} episodes` : `${this.shown.length.toLocaleString()} of ${all.toLocaleString()} episodes`;
      this.draw();
    }

    draw() {
      const first = Math.max(0, Math.floor(this.box.scrollTop / HEIGHT) - BEYOND);
      const last = Math.min(this.shown.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / HEIGHT) + BEYOND);
      this.space.replaceChildren(...this.shown.slice(first, last).map((entry, i) => this.item(entry, first + i)));
    }

    item(entry, position) {
      const marks = [
        entry.verdict ? app.make("span", { class: `mark ${entry.verdict}` }, entry.verdict) : null,
        entry.corrected ? app.make("span", { class: "mark", title: "corrected" }, "✎") : null,
        entry.agreement === null ? null : app.make("span", { class: `mark${app.isLow(entry.agreement) ? " warn" : ""}`, title: "agreement of samples, of 0 to 1" }, `≈ ${entry.agreement.toFixed(2)}`),
        entry.warnings ? app.make("span", { class: "mark warn", title: `${entry.warnings} warnings` }, `⚠ ${entry.warnings}`) : null,
      ];
      return app.make(
        "div",
        {
          class: "entry",
          role: "option",
          "aria-selected": String(entry.index === this.chosen),
          "data-episode": entry.index,
          style: { top: `${position * HEIGHT}px` },
          onclick: () => this.choose(entry.index),
        },
        app.make("div", { class: "line" }, app.make("b", {}, String(entry.index)), app.make("span", { class: "name" }, entry.task || "no task"), ...marks),
        entry.thumb
          ? app.make("img", { class: "strip", src: `data/thumbs/${app.episodeName(entry.index)}.jpg`, alt: "", loading: "lazy" })
          : app.make("div", { class: "strip none" }),
        app.make("div", { class: "line quiet" }, `${entry.subtasks} subtasks`, app.make("span", { class: "grow" }), `${entry.duration.toFixed(1)} s`)
      );
    }

    select(index) {
      this.chosen = index;
      const position = this.shown.findIndex((entry) => entry.index === index);
      if (position >= 0) {
        const top = position * HEIGHT;
        const { scrollTop, clientHeight } = this.box;
        if (top < scrollTop) this.box.scrollTop = top;
        else if (top + HEIGHT > scrollTop + clientHeight) this.box.scrollTop = top + HEIGHT - clientHeight;
      }
      this.draw();
    }

    /** The episode `step` places on in what is shown. */
    neighbor(step) {
      const position = this.shown.findIndex((entry) => entry.index === this.chosen);
      const next = position < 0 ? 0 : Math.min(Math.max(position + step, 0), this.shown.length - 1);
      return this.shown[next]?.index ?? null;
    }
  };
})(window.Cuesheet);
