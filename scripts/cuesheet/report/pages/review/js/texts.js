// Forms for the texts of an episode: rephrasings of its task, memory, and interjections with speech.
"use strict";

(function (app) {
  const { make, byId } = app;
  const clean = (text) => text.replace(/\s+/g, " ").trim();

  app.Texts = class {
    /**
     * `on`: rephrasings(list or null), memory(index, text or undefined), typeMemory(index, text),
     * talk(frame, talk or null), resetTalks(), cancel().
     */
    constructor(on) {
      this.on = on;
      this.form = null; // frame of the interjection in the form
      byId("add-talk").addEventListener("click", () => this.editTalk());
      byId("add-rephrasing").addEventListener("click", () => this.addRephrasing());
      byId("reset-rephrasings").addEventListener("click", () => on.rephrasings(null));
      byId("reset-talks").addEventListener("click", () => on.resetTalks());
    }

    open(episode) {
      this.episode = episode;
      this.leave();
    }

    leave() {
      this.form = null;
      this.drawn = {};
    }

    /** `edits` is an Edits, `index` the subtask at `frame` (-1: none). */
    show(edits, frame, index) {
      this.edits = edits;
      this.frame = frame;
      this.drawRephrasings();
      this.drawMemory(index);
      if (this.form === null) this.drawTalk();
    }

    /** Whether `name` has to be drawn, because `value` is not what it shows. */
    isNew(name, value) {
      const key = JSON.stringify(value);
      if (this.drawn[name] === key) return false;
      this.drawn[name] = key;
      return true;
    }

    drawRephrasings() {
      const { rephrasings, now } = this.edits;
      if (!this.isNew("rephrasings", [rephrasings, Boolean(now.rephrasings)])) return;
      byId("rephrasings-count").textContent = String(rephrasings.length);
      byId("reset-rephrasings").disabled = !now.rephrasings;
      byId("rephrasings").replaceChildren(...rephrasings.map((text, index) => this.rephrasing(text, index)));
    }

    rephrasing(text, index) {
      const replace = (...texts) => {
        const list = [...this.edits.rephrasings];
        list.splice(index, 1, ...texts);
        this.on.rephrasings(list);
      };
      return make("li", {},
        make("input", {
          value: text, maxlength: 300, "aria-label": `Rephrasing ${index + 1}`,
          onchange: (event) => replace(...[clean(event.target.value)].filter(Boolean)),
          onkeydown: (event) => {
            if (event.key === "Escape") event.target.value = text;
            if (event.key === "Enter" || event.key === "Escape") event.target.blur();
          },
        }),
        make("button", { "aria-label": `Delete rephrasing ${index + 1}`, title: "Delete", onclick: () => replace() }, "✕"));
    }

    /** A field for a new rephrasing; it becomes a change when it has a text. */
    addRephrasing() {
      const add = (event) => {
        const text = clean(event.target.value);
        if (text) this.on.rephrasings([...this.edits.rephrasings, text]);
        else event.target.closest("li")?.remove();
      };
      const input = make("input", {
        maxlength: 300, "aria-label": "New rephrasing", onblur: add,
        onkeydown: (event) => {
          if (event.key === "Escape") event.target.value = "";
          if (event.key === "Enter" || event.key === "Escape") event.target.blur();
        },
      });
      byId("rephrasings").append(make("li", {}, input));
      input.focus();
    }

    drawMemory(index) {
      const { segmentation } = this.edits;
      const memory = app.memories(this.episode, segmentation).find((one) => one.index === index);
      const own = segmentation[index]?.memory !== undefined;
      if (!this.isNew("memory", [index, memory, own])) return;
      const box = byId("memory");
      if (index < 1) {
        box.replaceChildren(make("p", { class: "quiet" }, "Memory starts with the second subtask."));
        return;
      }
      const before = memory?.content ?? "";
      box.replaceChildren(
        make("textarea", {
          rows: 3, maxlength: 800, value: before, "aria-label": `Memory at the start of subtask ${index + 1}`,
          placeholder: own ? "No memory is written here" : "",
          oninput: (event) => this.on.typeMemory(index, event.target.value),
          onchange: (event) => this.on.memory(index, clean(event.target.value)),
          onkeydown: (event) => {
            if (event.key !== "Escape") return;
            event.target.value = before;
            event.target.blur();
            this.on.cancel();
          },
        }),
        make("div", { class: "tools" },
          make("span", { class: "quiet" }, `At the start of subtask ${index + 1}${own ? ", corrected" : ""}`),
          make("button", { disabled: !before, onclick: () => this.on.memory(index, "") }, "Delete"),
          make("button", { disabled: !own, title: "Use the model's memory", onclick: () => this.on.memory(index, undefined) }, "Undo correction"))
      );
    }

    drawTalk() {
      const talk = this.edits.talks.find((one) => one.frame === this.frame);
      const corrected = Boolean(this.edits.now.talks);
      if (!this.isNew("talk", [talk, corrected])) return;
      byId("reset-talks").disabled = !corrected;
      byId("add-talk").hidden = Boolean(talk);
      byId("talk").replaceChildren(...(talk ? [this.card(talk)] : [make("p", { class: "quiet" }, "None at this frame.")]));
    }

    card({ frame, interjection, speech }) {
      return make("div", { class: "question" },
        interjection ? make("div", {}, make("span", { class: "quiet" }, "person: "), interjection) : null,
        make("div", {}, make("span", { class: "quiet" }, "robot: "), speech),
        make("div", { class: "tools" },
          make("button", { onclick: () => this.editTalk() }, "Edit"),
          make("button", { onclick: () => this.on.talk(frame, null) }, "Delete")));
    }

    /** The form for the interjection and speech at the frame that is shown. */
    editTalk() {
      if (this.form !== null) return;
      const { frame } = this;
      this.form = frame;
      const talk = this.edits.talks.find((one) => one.frame === frame);
      const field = (name, value, required) =>
        make("label", {}, name, make("input", { value, maxlength: 300, required, autocomplete: "off" }));
      const asks = field(frame ? "person says" : "person says (may be empty at the first frame)", talk?.interjection ?? "", frame > 0);
      const says = field("robot says", talk?.speech ?? "", true);
      const [person, robot] = [asks, says].map((label) => label.querySelector("input"));
      const problem = make("p", { class: "problem", role: "alert" });
      const save = (event) => {
        event.preventDefault();
        const [interjection, speech] = [clean(person.value), clean(robot.value)];
        if (!speech || (frame && !interjection)) problem.textContent = "Fill in both texts.";
        else this.close(() => this.on.talk(frame, { interjection: interjection || null, speech }));
      };
      byId("add-talk").hidden = true;
      byId("talk").replaceChildren(
        make("form", { class: "question", onsubmit: save },
          make("div", { class: "quiet" }, `frame ${frame} (${app.seconds(this.episode.timestamps[frame])})`), asks, says, problem,
          make("div", { class: "tools" }, make("button", { class: "primary" }, "Save"),
            make("button", { type: "button", onclick: () => this.cancel() }, "Cancel"))));
      person.focus();
    }

    cancel() {
      this.close(() => this.drawTalk());
    }

    close(then) {
      this.form = null;
      delete this.drawn.talk;
      then();
    }
  };
})(window.Cuesheet);
