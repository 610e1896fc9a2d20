// The timeline: one track per kind of language, the signals lane, and the playhead over all tracks.
"use strict";

(function (app) {
  const { make } = app;
  const SVG = "http://www.w3.org/2000/svg";
  const SNAP_PX = 8; // a boundary that is dragged this close to an event snaps to it
  const STEPS_S = [0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600];

  app.Timeline = class {
    /** `on`: seek(frame), moveBoundary(index, frame, last), rename(index). */
    constructor(on) {
      this.on = on;
      this.root = app.byId("timeline");
      this.root.addEventListener("pointerdown", (event) => this.down(event));
    }

    open(episode) {
      this.episode = episode;
      this.playhead = make("div", { class: "playhead" });
      this.lanes = make("div", { class: "lanes" });
      this.tracks = {};
      const rows = [this.ruler()];
      for (const [name, title] of [["subtask", "subtask"], ["plan", "plan"], ["memory", "memory"], ["talk", "interjection, speech"], ["vqa", "questions"]]) {
        this.tracks[name] = make("div", { class: `track ${name}`, "data-title": title });
        rows.push(this.tracks[name]);
      }
      if (this.episode.signals) rows.push(this.signals());
      rows.push(...this.motion());
      this.lanes.append(...rows, this.playhead);
      this.root.replaceChildren(this.lanes);
      this.drawRows();
    }

    left(time) {
      return `${(100 * time) / this.episode.end_s}%`;
    }

    span(start, end) {
      return { left: this.left(start), width: `${(100 * (end - start)) / this.episode.end_s}%` };
    }

    time(frame) {
      return frame < this.episode.length ? this.episode.timestamps[frame] : this.episode.end_s;
    }

    ruler() {
      const wanted = this.episode.end_s / 12;
      const step = STEPS_S.find((value) => value >= wanted) ?? STEPS_S.at(-1);
      const marks = [];
      // The last number would reach beyond the end.
      for (let i = 0; i * step < this.episode.end_s - step * 0.4; i += 1) {
        const text = step < 1 ? (i * step).toFixed(1) : String(i * step);
        marks.push(make("span", { style: { left: this.left(i * step) } }, i ? text : "0 s"));
      }
      return make("div", { class: "ruler", title: "seconds; click or drag to seek" }, ...marks);
    }

    /** One track per arm with its `motion` rows, if there are any. */
    motion() {
      const arms = [...new Set(this.episode.motion.map((one) => one.arm))];
      return arms.map((arm) =>
        make(
          "div",
          { class: "track motion", "data-title": `motion, ${arm}` },
          ...this.episode.motion
            .filter((one) => one.arm === arm)
            .map((one) => {
              const [start, end] = [this.time(one.start_frame), this.time(one.end_frame)];
              const title = `${app.seconds(start)} to ${app.seconds(end)}: ${one.text}`;
              return make("div", { class: "span", style: this.span(start, end), title, "data-time": start }, one.text);
            })
        )
      );
    }

    /** Gripper opening and arm speed as curves, gripper strokes as marks. */
    signals() {
      const { times, grippers, arms, strokes } = this.episode.signals;
      const svg = document.createElementNS(SVG, "svg");
      svg.setAttribute("viewBox", "0 0 1000 100");
      svg.setAttribute("preserveAspectRatio", "none");
      svg.setAttribute("aria-hidden", "true");
      const curve = (values, top, kind) => {
        const line = document.createElementNS(SVG, "polyline");
        const y = (value) => 96 - (92 * Math.min(Math.max(value, 0), top)) / top;
        line.setAttribute("points", times.map((time, i) => `${((1000 * time) / this.episode.end_s).toFixed(1)},${y(values[i]).toFixed(1)}`).join(" "));
        line.setAttribute("class", kind);
        svg.append(line);
      };
      for (const arm of arms) curve(arm.speed, Math.max(1, ...arm.speed), "speed");
      for (const gripper of grippers) curve(gripper.opening, 1, "opening");
      const marks = strokes.map((stroke) =>
        make("div", {
          class: `stroke ${stroke.kind}`,
          style: this.span(this.time(stroke.start_frame), this.time(stroke.end_frame)),
          title: `${stroke.gripper}: ${stroke.kind}, ${app.seconds(this.time(stroke.start_frame))} to ${app.seconds(this.time(stroke.end_frame))}`,
        })
      );
      return make("div", { class: "track signals", "data-title": "gripper, speed", role: "img", "aria-label": `Gripper opening and arm speed; ${strokes.length} gripper strokes` }, svg, ...marks);
    }

    /** Start or end of the nearest stroke if the pointer is close to it; Alt disables snapping. */
    snappedFrame(event) {
      const frame = this.frameOf(event);
      if (event.altKey || !this.episode.signals) return frame;
      const perSecond = this.lanes.getBoundingClientRect().width / this.episode.end_s;
      const distance = (other) => Math.abs(this.time(other) - this.time(frame)) * perSecond;
      const events = this.episode.signals.strokes.flatMap((stroke) => [stroke.start_frame, stroke.end_frame]);
      const nearest = events.reduce((best, other) => (best === null || distance(other) < distance(best) ? other : best), null);
      return nearest !== null && distance(nearest) <= SNAP_PX ? nearest : frame;
    }

    drawRows() {
      const { persistent, events, end_s: end } = this.episode;
      for (const style of ["plan", "memory"]) {
        const rows = persistent.filter((row) => row.style === style);
        this.tracks[style].replaceChildren(
          ...rows.map((row, i) =>
            make("div", { class: "span", style: this.span(row.timestamp, rows[i + 1]?.timestamp ?? end), title: row.content, "data-time": row.timestamp }, row.content.replaceAll("\n", "  "))
          )
        );
      }
      const talk = events.filter((row) => row.style === "interjection" || row.style === null);
      this.tracks.talk.replaceChildren(
        ...talk.map((row) => {
          const asks = row.style === "interjection";
          const text = asks ? row.content : app.speechText(row);
          return make("div", { class: `dot ${asks ? "asks" : "says"}`, style: { left: this.left(row.timestamp) }, title: `${asks ? "person" : "robot"}: ${text}`, "data-time": row.timestamp });
        })
      );
    }

    /** `agreement(part)`: of the samples that the model's subtask was made of, or null. */
    drawSubtasks(cover, chosen, agreement) {
      const parts = cover.map((part, index) => {
        const agreed = agreement(part);
        const known = agreed === null ? "" : `\nagreement of ${this.episode.samples} samples: ${agreed.toFixed(2)}`;
        return make(
          "div",
          {
            class: `span part${index === chosen ? " chosen" : ""}`,
            "data-part": index,
            title: `${app.seconds(this.time(part.start))} to ${app.seconds(this.time(part.end))}: ${part.label}${known}`,
            style: { ...this.span(this.time(part.start), this.time(part.end)), background: `var(--c${app.colorOf(part.label)})` },
            ondblclick: () => this.on.rename(index),
          },
          part.label,
          agreed === null ? null : make("i", { class: `agreed${app.isLow(agreed) ? " low" : ""}`, style: { width: `${100 * agreed}%` } })
        );
      });
      const edges = cover.slice(1).map((part, i) =>
        make("div", { class: "edge", "data-edge": i + 1, title: this.episode.signals ? "Drag to move the boundary. It snaps to gripper strokes unless Alt is pressed." : "Drag to move the boundary", style: { left: this.left(this.time(part.start)) } })
      );
      this.tracks.subtask.replaceChildren(...parts, ...edges);
    }

    drawPairs(pairs) {
      const frames = new Map();
      for (const pair of pairs) frames.set(pair.frame_index, [...(frames.get(pair.frame_index) ?? []), pair]);
      this.tracks.vqa.replaceChildren(
        ...[...frames].map(([frame, found]) =>
          make("div", {
            class: `tick${found.some((pair) => pair.corrected) ? " corrected" : ""}`,
            style: { left: this.left(this.time(frame)) },
            "data-frame": frame,
            title: found.map((pair) => `${pair.camera}: ${pair.question}`).join("\n"),
          })
        )
      );
    }

    showFrame(frame) {
      this.playhead.style.left = this.left(this.time(frame));
    }

    frameOf(event) {
      const box = this.lanes.getBoundingClientRect();
      const share = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
      return app.frameAt(this.episode, share * this.episode.end_s);
    }

    down(event) {
      if (event.button !== 0 || !this.episode) return;
      const { edge, frame, time } = event.target.dataset;
      if (edge !== undefined) {
        this.drag(event, (moved, last) => this.on.moveBoundary(Number(edge), this.snappedFrame(moved), last));
        return;
      }
      if (frame !== undefined) this.on.seek(Number(frame));
      else if (time !== undefined) this.on.seek(app.frameAt(this.episode, Number(time)));
      else {
        this.on.seek(this.frameOf(event));
        this.drag(event, (moved) => this.on.seek(this.frameOf(moved)));
      }
    }

    drag(event, move) {
      event.preventDefault();
      this.root.setPointerCapture(event.pointerId);
      const moving = (moved) => move(moved, false);
      const done = (moved) => {
        move(moved, true);
        this.root.removeEventListener("pointermove", moving);
        this.root.removeEventListener("pointerup", done);
        this.root.removeEventListener("pointercancel", done);
      };
      this.root.addEventListener("pointermove", moving);
      this.root.addEventListener("pointerup", done);
      this.root.addEventListener("pointercancel", done);
    }
  };
})(window.Cuesheet);
