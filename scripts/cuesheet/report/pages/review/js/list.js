// The list of episodes: a queue that can be sorted and filtered. It is loaded in chunks, and only
// the visible entries are in the page.
"use strict";

(function (app) {
  const { byId, make } = app;
  const HEIGHT = 84; // px of an entry, as in review.css
  const BEYOND = 4; // entries drawn above and below the visible ones

  const ORDERS = {
    index: (a, b) => a.index - b.index,
    warnings: (a, b) => b.warnings - a.warnings || a.index - b.index,
    agreement: (a, b) => (a.agreement ?? 2) - (b.agreement ?? 2) || a.index - b.index,
    subtasks: (a, b) => b.subtasks - a.subtasks || a.index - b.index,
    duration: (a, b) => b.duration - a.duration || a.index - b.index,
    task: (a, b) => a.task.localeCompare(b.task) || a.index - b.index,
  };
  /** Per select of the filters: whether an entry matches a value. "" matches every entry. */
  const FILTERS = {
    "filter-done": (entry, value) => entry.done === (value === "done"),
    "filter-verdict": (entry, value) => (entry.verdict ?? "none") === value,
    "filter-check": (entry, value) => (value === "any" ? entry.warnings > 0 : entry.checks.includes(value)),
    "filter-corrected": (entry, value) => entry.corrected === (value === "corrected"),
    "filter-task": (entry, value) => entry.task === value,
  };

  app.List = class {
    /** `choose(index)` is called when the reviewer chooses an episode. */
    constructor(choose) {
      this.choose = choose;
      this.entries = [];
      this.byIndex = new Map();
      this.shown = [];
      this.chosen = null;
      this.marks = new Map();
      this.box = byId("list");
      this.space = byId("list-space");
      this.box.addEventListener("scroll", () => this.draw());
      new ResizeObserver(() => this.draw()).observe(this.box);
      for (const id of ["search", "sort", ...Object.keys(FILTERS)]) byId(id).addEventListener("input", () => this.refresh());
      byId("clear-filters").addEventListener("click", () => {
        for (const id of ["search", ...Object.keys(FILTERS)]) byId(id).value = "";
        this.refresh();
      });
      byId("search").addEventListener("keydown", (event) => {
        if (event.key === "Enter" && this.shown.length) this.choose(this.shown[0].index);
        if (event.key === "Enter" || event.key === "Escape") event.target.blur();
      });
    }

    /** `marks`: episode -> verdict, done, corrected and effect, newer than the list's. */
    setMarks(marks) {
      this.marks = marks;
    }

    add(entries) {
      for (const entry of entries) {
        entry.words = `${entry.index} ${entry.task} ${entry.labels.join(" ")}`.toLowerCase();
        entry.built = entry.effect;
        Object.assign(entry, this.marks.get(entry.index) ?? {});
        this.entries.push(entry);
        this.byIndex.set(entry.index, entry);
      }
      this.addOptions("filter-task", entries.map((entry) => entry.task).filter(Boolean));
      this.addOptions("filter-check", entries.flatMap((entry) => entry.checks));
      this.refresh();
    }

    addOptions(id, values) {
      const select = byId(id);
      const known = new Set([...select.options].map((option) => option.value));
      for (const value of [...new Set(values)].sort()) if (!known.has(value)) select.append(make("option", { value }, value.replaceAll("_", " ")));
    }

    update(index, changes) {
      const entry = this.byIndex.get(index);
      if (!entry) return;
      Object.assign(entry, changes);
      this.count();
      this.draw();
    }

    refresh() {
      const words = byId("search").value.toLowerCase().split(/\s+/).filter(Boolean);
      const active = Object.entries(FILTERS).map(([id, test]) => [test, byId(id).value]).filter(([, value]) => value);
      this.shown = this.entries.filter((entry) => active.every(([test, value]) => test(entry, value)) && words.every((word) => entry.words.includes(word)));
      this.shown.sort(ORDERS[byId("sort").value]);
      this.space.style.height = `${this.shown.length * HEIGHT}px`;
      byId("filters-active").textContent = active.length ? `(${active.length})` : "";
      byId("clear-filters").hidden = !active.length && !words.length;
      this.count();
      this.draw();
    }

    count() {
      const [all, shown] = [this.entries.length, this.shown.length];
      const episodes = `${all.toLocaleString()} ${all === 1 ? "episode" : "episodes"}`;
      byId("counts").textContent = shown === all ? episodes : `${shown.toLocaleString()} of ${episodes}`;
      const done = this.shown.filter((entry) => entry.done).length;
      byId("progress").textContent = `${done.toLocaleString()} of ${shown.toLocaleString()} done`;
      byId("progress-bar").style.width = `${shown ? (100 * done) / shown : 0}%`;
      const pending = this.entries.filter((entry) => entry.effect !== entry.built).length;
      byId("next").hidden = !pending;
      byId("pending").textContent = `${pending.toLocaleString()} corrected ${pending === 1 ? "episode is" : "episodes are"} not in the dataset yet. To apply:`;
    }

    draw() {
      const first = Math.max(0, Math.floor(this.box.scrollTop / HEIGHT) - BEYOND);
      const last = Math.min(this.shown.length, Math.ceil((this.box.scrollTop + this.box.clientHeight) / HEIGHT) + BEYOND);
      this.space.replaceChildren(...this.shown.slice(first, last).map((entry, i) => this.item(entry, first + i)));
    }

    item(entry, position) {
      const marks = [
        entry.done ? make("span", { class: "mark good", title: "done" }, "✓") : null,
        entry.verdict ? make("span", { class: `mark ${entry.verdict}` }, entry.verdict) : null,
        entry.corrected ? make("span", { class: "mark", title: "corrected" }, "✎") : null,
        entry.agreement === null ? null : make("span", { class: `mark${app.isLow(entry.agreement) ? " warn" : ""}`, title: "agreement of the samples (0 to 1)" }, `≈ ${entry.agreement.toFixed(2)}`),
        entry.warnings ? make("span", { class: "mark warn", title: `${entry.warnings} ${entry.warnings === 1 ? "warning" : "warnings"}: ${entry.checks.join(", ").replaceAll("_", " ")}` }, `⚠ ${entry.warnings}`) : null,
      ];
      const subtasks = `${entry.subtasks} ${entry.subtasks === 1 ? "subtask" : "subtasks"}`;
      return make(
        "div",
        {
          class: "entry",
          role: "option",
          id: `entry-${entry.index}`,
          "aria-selected": String(entry.index === this.chosen),
          "data-episode": entry.index,
          style: { top: `${position * HEIGHT}px` },
          onclick: () => this.choose(entry.index),
        },
        make("div", { class: "line" }, make("b", {}, String(entry.index)), make("span", { class: "name" }, entry.task || "no task"), ...marks),
        entry.thumb
          ? make("img", { class: "strip", src: `data/thumbs/${app.episodeName(entry.index)}.jpg`, alt: "", loading: "lazy" })
          : make("div", { class: "strip none" }),
        make("div", { class: "line quiet" }, subtasks, make("span", { class: "grow" }), `${entry.duration.toFixed(1)} s`)
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
      if (byId(`entry-${index}`)) this.box.setAttribute("aria-activedescendant", `entry-${index}`);
      else this.box.removeAttribute("aria-activedescendant");
    }

    /** The episode that is `step` entries away in the list. */
    neighbor(step) {
      const position = this.shown.findIndex((entry) => entry.index === this.chosen);
      const next = position < 0 ? 0 : Math.min(Math.max(position + step, 0), this.shown.length - 1);
      return this.shown[next]?.index ?? null;
    }

    /** The next episode in the list that is not done, from the chosen one on and around; or null. */
    nextOpen() {
      const position = this.shown.findIndex((entry) => entry.index === this.chosen);
      const rest = [...this.shown.slice(position + 1), ...this.shown.slice(0, Math.max(position, 0))];
      return rest.find((entry) => !entry.done)?.index ?? null;
    }
  };
})(window.Cuesheet);
