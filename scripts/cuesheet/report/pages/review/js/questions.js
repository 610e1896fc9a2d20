// Visual questions of the frame that is shown, and the form that edits one.
"use strict";

(function (app) {
  const { make } = app;
  const RELATIONS = ["left_of", "right_of", "on", "in", "above", "below", "near"];
  const TEXTS = { count: ["label"], attribute: ["label", "attribute", "value"], spatial: ["subject", "object"], keypoint: ["label"] };

  const BLANKS = {
    bbox: () => ({ detections: [{ label: "", bbox_format: "xyxy", bbox: [0, 0, 0, 0] }] }),
    keypoint: ({ width, height }) => ({ label: "", point_format: "xy", point: [width / 2, height / 2] }),
    count: () => ({ label: "", count: 1 }),
    attribute: () => ({ label: "", attribute: "", value: "" }),
    spatial: () => ({ subject: "", relation: "near", object: "" }),
  };

  app.answerText = function ({ type, answer }) {
    if (type === "bbox") return answer.detections.map((one) => one.label).join(", ");
    if (type === "keypoint") return `${answer.label} at (${answer.point.join(", ")})`;
    if (type === "count") return `${answer.count} × ${answer.label}`;
    if (type === "attribute") return `${answer.label}: ${answer.attribute} ${answer.value}`;
    if (type === "spatial") return `${answer.subject} ${answer.relation.replaceAll("_", " ")} ${answer.object}`;
    return JSON.stringify(answer);
  };

  app.Questions = class {
    /**
     * `on`: change(pair), remove(pair), restore(pair), cancel(), seek(frame), draw(camera, done),
     * redraw(pair), size(camera) -> {width, height}.
     */
    constructor(on) {
      this.on = on;
      this.root = app.byId("questions");
      this.form = null; // the pair that is being edited
      this.frame = 0;
      app.byId("add-type").replaceChildren(...Object.keys(BLANKS).map((type) => make("option", { value: type }, type)));
    }

    open(episode) {
      this.episode = episode;
      this.cameras = episode.cameras.filter((camera) => camera.keyframes.length);
      app.byId("add").hidden = !this.cameras.length;
      app.byId("add-camera").replaceChildren(...this.cameras.map(({ name }) => make("option", { value: name, title: name }, app.shortName(name))));
    }

    /** A new pair for the nearest decoded frame without a question from the chosen camera, or null. */
    blank(pairs, frame) {
      const camera = this.cameras.find(({ name }) => name === app.byId("add-camera").value);
      const type = app.byId("add-type").value;
      const taken = new Set(pairs.filter((pair) => pair.camera === camera?.name).map((pair) => pair.frame_index));
      const free = (camera?.keyframes ?? []).filter((index) => !taken.has(index));
      if (!free.length) return null;
      const nearest = free.reduce((best, index) => (Math.abs(index - frame) < Math.abs(best - frame) ? index : best));
      return { frame_index: nearest, camera: camera.name, type, question: "", answer: BLANKS[type](camera) };
    }

    /** Show the questions of `frame`, or the text `none`. An open form stays until it is closed. */
    show(frame, pairs, none) {
      this.frame = frame;
      if (this.form) {
        this.away.hidden = frame === this.form.frame_index;
        return;
      }
      this.root.replaceChildren(...(pairs.length ? pairs.map((pair) => this.card(pair)) : [make("p", { class: "quiet" }, none)]));
    }

    card(pair) {
      return make(
        "div",
        { class: `question${pair.corrected ? " corrected" : ""}` },
        make("div", { class: "quiet" }, `${pair.type}, ${pair.camera}${pair.corrected ? ", corrected" : ""}`),
        make("div", {}, pair.question),
        make("b", {}, app.answerText(pair)),
        make(
          "div",
          { class: "tools" },
          make("button", { onclick: () => this.edit(pair) }, "Edit"),
          make("button", { onclick: () => this.on.remove(pair) }, "Delete"),
          pair.corrected ? make("button", { onclick: () => this.on.restore(pair) }, "Undo correction") : null
        )
      );
    }

    edit(pair) {
      this.form = structuredClone(pair);
      this.draw();
    }

    cancel() {
      this.close();
      this.on.cancel();
    }

    close() {
      if (!this.form) return;
      this.form = null;
      this.on.draw(null, null);
      this.on.redraw(null);
    }

    /** Another episode is opened. The form is stored and opens again with its episode. */
    leave() {
      this.form = null;
      this.on.draw(null, null);
    }

    draw() {
      const pair = this.form;
      const { answer, type } = pair;
      const text = (name, object, key, kind = "text") =>
        make("label", {}, name, make("input", {
          type: kind,
          step: kind === "number" ? "any" : null,
          value: object[key],
          required: true,
          oninput: (event) => {
            object[key] = kind === "number" ? Number(event.target.value) : event.target.value;
            this.on.redraw(pair);
          },
        }));
      const fields = [text("question", pair, "question")];
      for (const key of TEXTS[type] ?? []) fields.push(text(key, answer, key));
      if (type === "count") fields.push(text("count", answer, "count", "number"));
      if (type === "spatial") {
        const choice = make("select", { oninput: (event) => (answer.relation = event.target.value) },
          ...RELATIONS.map((value) => make("option", { value, selected: value === answer.relation }, value.replaceAll("_", " "))));
        fields.splice(2, 0, make("label", {}, "relation", choice));
      }
      if (type === "bbox") {
        answer.detections.forEach((one, i) => {
          fields.push(text(`label ${i + 1}`, one, "label"));
          fields.push(make("div", { class: "numbers" }, ...["x min", "y min", "x max", "y max"].map((name, k) => text(name, one.bbox, k, "number"))));
        });
        fields.push(make("p", { class: "quiet" }, `Drag on the image of ${pair.camera} to draw ${answer.detections.length > 1 ? "the first box" : "the box"} again.`));
      }
      if (type === "keypoint") {
        fields.push(make("div", { class: "numbers" }, ...["x", "y"].map((name, k) => text(name, answer.point, k, "number"))));
        fields.push(make("p", { class: "quiet" }, `Click on the image of ${pair.camera} to place the point.`));
      }
      const time = app.seconds(this.episode.timestamps[pair.frame_index]);
      this.away = make("button", { type: "button", hidden: this.frame === pair.frame_index, onclick: () => this.on.seek(pair.frame_index) }, `Show frame ${pair.frame_index}`);
      const problem = make("p", { class: "problem", role: "alert" });
      const save = (event) => {
        event.preventDefault();
        problem.textContent = this.problem(pair);
        if (problem.textContent) return;
        this.close();
        this.on.change(pair);
      };
      this.root.replaceChildren(
        make("form", { class: "question", onsubmit: save },
          make("div", { class: "quiet" }, `${type}, ${pair.camera}, frame ${pair.frame_index} (${time}) `, this.away), ...fields, problem,
          make("div", { class: "tools" }, make("button", { class: "primary" }, "Save"),
            make("button", { type: "button", onclick: () => this.cancel() }, "Cancel")))
      );
      const drawn = (found, last) => {
        if (type === "bbox") answer.detections[0].bbox = found.bbox;
        if (type === "keypoint") answer.point = found.point;
        this.on.redraw(pair);
        if (last) this.draw();
      };
      this.on.draw(pair.camera, type === "bbox" || type === "keypoint" ? drawn : null);
      this.on.redraw(pair);
    }

    /** What is wrong with a pair, or "". */
    problem({ question, type, answer, camera }) {
      const texts = [question, ...(TEXTS[type] ?? []).map((key) => answer[key]), ...(answer.detections ?? []).map((one) => one.label)];
      if (texts.some((value) => !value.trim())) return "Fill in all texts.";
      if (type === "count" && !(Number.isInteger(answer.count) && answer.count >= 0)) return "The count must be a whole number, 0 or more.";
      const { width, height } = this.on.size(camera);
      for (const { bbox } of answer.detections ?? []) {
        const [x0, y0, x1, y1] = bbox;
        if (!(x0 >= 0 && y0 >= 0 && x0 < x1 && y0 < y1 && x1 <= width && y1 <= height)) return `A box must be inside the image (${width} × ${height} pixels), with min less than max.`;
      }
      if (answer.point && !(answer.point[0] >= 0 && answer.point[1] >= 0 && answer.point[0] < width && answer.point[1] < height)) {
        return `A point must be inside the image (${width} × ${height} pixels).`;
      }
      return "";
    }
  };
})(window.Cuesheet);
