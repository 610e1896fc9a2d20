// The timeline: thumbnails, a ruler, one track per kind of language, the signals lane, and the
// playhead over all of them. It can be zoomed and scrolled (timeline_view.js).
"use strict";

(function (app) {
  const { make } = app;
  const SNAP_PX = 8; // a boundary that is dragged this close to an event snaps to it
  const NARROW_PX = 8; // a subtask that is narrower has no boundaries to drag and no label
  const TRACKS = [["subtask", "subtask"], ["plan", "plan"], ["memory", "memory"], ["talk", "interjection, speech"], ["vqa", "questions"]];

  app.Timeline = class {
    /** `on`: seek(frame), moveBoundary(index, frame, last), rename(index). */
    constructor(on) {
      this.on = on;
      this.zone = app.byId("timeline");
      this.view = new app.TimelineView((frame) => on.seek(frame), () => this.drawVisible());
      this.thumbnails = new app.Thumbnails();
      this.zone.addEventListener("pointerdown", (event) => this.down(event));
    }

    open(episode) {
      this.episode = episode;
      this.subtasks = null;
      this.playhead = make("div", { class: "playhead" });
      this.lanes = make("div", { class: "lanes" });
      this.ruler = make("div", { class: "ruler", title: "Click or drag to seek" });
      this.tracks = {};
      const rows = [this.thumbnails.track, this.ruler];
      const titles = [make("div", { class: "title-thumbnails" }), make("div", { class: "title-ruler" })];
      for (const [name, title] of TRACKS) {
        this.tracks[name] = make("div", { class: `track ${name}` });
        rows.push(this.tracks[name]);
        titles.push(make("div", { class: `title-${name}` }, title));
      }
      if (episode.signals) {
        rows.push(app.signalsLane(episode));
        titles.push(make("div", { class: "title-signals" }, "gripper, speed"));
      }
      for (const arm of new Set(episode.motion.map((one) => one.arm))) {
        rows.push(this.motion(arm));
        titles.push(make("div", { class: "title-motion" }, `motion, ${arm}`));
      }
      this.lanes.append(...rows, this.playhead);
      app.byId("titles").replaceChildren(...titles);
      this.zone.replaceChildren(this.lanes);
      this.view.open(episode, this.lanes);
      this.drawRows();
    }

    left(time) {
      return app.left(this.episode, time);
    }

    span(start, end) {
      return { left: this.left(start), width: this.left(end - start) };
    }

    time(frame) {
      return app.timeOf(this.episode, frame);
    }

    /** Draw what depends on the zoom and on what is visible. */
    drawVisible() {
      const { episode, view } = this;
      const [from, to] = view.window();
      const step = app.rulerStep((to - from) / Math.max(view.width / 90, 1));
      const marks = [];
      // A label at the very end would not fit.
      const last = Math.min(to, episode.end_s - step * 0.4);
      for (let i = Math.max(0, Math.floor(from / step)); i * step < last; i += 1) {
        marks.push(make("span", { style: { left: this.left(i * step) } }, app.clock(i * step, step)));
      }
      this.ruler.replaceChildren(...marks);
      this.thumbnails.show(from, to, view.pxPerSecond);
      if (this.subtasks && this.drawnAt !== view.pxPerSecond) this.drawSubtasks(...this.subtasks);
    }

    drawRows() {
      const { persistent, end_s: end } = this.episode;
      const rows = persistent.filter((row) => row.style === "plan");
      this.tracks.plan.replaceChildren(
        ...rows.map((row, i) => this.text(row.timestamp, rows[i + 1]?.timestamp ?? end, row.content))
      );
    }

    text(start, end, content) {
      return make("div", { class: "span", style: this.span(start, end), title: content, "data-time": start }, make("span", { class: "text" }, content.replaceAll("\n", "  ")));
    }

    /** The track with the `motion` rows of an arm. */
    motion(arm) {
      const rows = this.episode.motion.filter((one) => one.arm === arm);
      return make("div", { class: "track motion" }, ...rows.map((one) => this.text(this.time(one.start_frame), this.time(one.end_frame), one.text)));
    }

    /** `memories`: [{time, content}] in order. */
    drawMemory(memories) {
      this.tracks.memory.replaceChildren(
        ...memories.map(({ time, content }, i) => this.text(time, memories[i + 1]?.time ?? this.episode.end_s, content))
      );
    }

    /** `talks`: [{frame, interjection, speech}], with a frame each. */
    drawTalks(talks) {
      const dot = (frame, who, text, kind) =>
        make("div", { class: `dot ${kind}`, style: { left: this.left(this.time(frame)) }, title: `${who}: ${text}`, "data-frame": frame });
      this.tracks.talk.replaceChildren(
        ...talks.flatMap(({ frame, interjection, speech }) => [
          ...(interjection ? [dot(frame, "person", interjection, "asks")] : []),
          ...(speech ? [dot(frame, "robot", speech, "says")] : []),
        ])
      );
    }

    /** `agreement(subtask)`: of the samples of which the model's subtask was merged, or null. */
    drawSubtasks(segmentation, chosen, agreement) {
      this.subtasks = [segmentation, chosen, agreement];
      this.drawnAt = this.view.pxPerSecond;
      const wide = segmentation.map((subtask) => (this.time(subtask.end) - this.time(subtask.start)) * this.view.pxPerSecond > NARROW_PX);
      const parts = segmentation.map((subtask, index) => {
        const agreed = agreement(subtask);
        const known = agreed === null ? "" : `\nagreement of ${this.episode.samples} samples: ${agreed.toFixed(2)}`;
        return make(
          "div",
          {
            class: `span part${index === chosen ? " chosen" : ""}`,
            "data-part": index,
            title: `${app.seconds(this.time(subtask.start))} to ${app.seconds(this.time(subtask.end))}: ${subtask.label}${known}`,
            style: { ...this.span(this.time(subtask.start), this.time(subtask.end)), background: `var(--c${app.colorOf(subtask.label)})` },
            ondblclick: () => this.on.rename(index),
          },
          wide[index] ? make("span", { class: "text" }, subtask.label) : null,
          agreed === null ? null : make("i", { class: `agreed${app.isLow(agreed) ? " low" : ""}`, style: { width: `${100 * agreed}%` } })
        );
      });
      const hint = this.episode.signals ? "Drag to move the boundary. It snaps to gripper strokes unless Alt is pressed." : "Drag to move the boundary";
      const edges = segmentation.flatMap((subtask, index) =>
        index && (wide[index - 1] || wide[index]) ? [make("div", { class: "edge", "data-edge": index, title: hint, style: { left: this.left(this.time(subtask.start)) } })] : []
      );
      this.tracks.subtask.replaceChildren(...parts, ...edges);
      this.view.drawMap(segmentation);
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

    /** `label`: the subtask at the frame, for screen readers. */
    showFrame(frame, label) {
      const time = this.time(frame);
      this.playhead.style.left = this.left(time);
      this.zone.setAttribute("aria-valuemax", String(this.episode.length - 1));
      this.zone.setAttribute("aria-valuenow", String(frame));
      this.zone.setAttribute("aria-valuetext", `${app.seconds(time)}, frame ${frame}${label ? `, ${label}` : ""}`);
      this.view.follow(time, Boolean(this.pointer));
    }

    frameOf(event) {
      const box = this.lanes.getBoundingClientRect();
      const share = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
      return app.frameAt(this.episode, share * this.episode.end_s);
    }

    /** Start or end of the nearest stroke if the pointer is close to it; Alt disables snapping. */
    snappedFrame(event) {
      const frame = this.frameOf(event);
      if (event.altKey || !this.episode.signals) return frame;
      const distance = (other) => Math.abs(this.time(other) - this.time(frame)) * this.view.pxPerSecond;
      const events = this.episode.signals.strokes.flatMap((stroke) => [stroke.start_frame, stroke.end_frame]);
      const nearest = events.reduce((best, other) => (best === null || distance(other) < distance(best) ? other : best), null);
      return nearest !== null && distance(nearest) <= SNAP_PX ? nearest : frame;
    }

    down(event) {
      // The scroll bar is below the lanes.
      if (event.button !== 0 || !this.episode || !this.lanes.contains(event.target)) return;
      const target = event.target.closest("[data-edge], [data-frame], [data-time]")?.dataset ?? {};
      if (target.edge !== undefined) {
        this.drag(event, (moved, last) => this.on.moveBoundary(Number(target.edge), this.snappedFrame(moved), last));
        return;
      }
      if (target.frame !== undefined) this.on.seek(Number(target.frame));
      else if (target.time !== undefined) this.on.seek(app.frameAt(this.episode, Number(target.time)));
      else {
        this.on.seek(this.frameOf(event));
        this.drag(event, (moved) => this.on.seek(this.frameOf(moved)));
      }
    }

    drag(event, move) {
      event.preventDefault();
      this.zone.focus({ preventScroll: true });
      this.zone.setPointerCapture(event.pointerId);
      this.pointer = true;
      const moving = (moved) => move(moved, false);
      const done = (moved) => {
        this.pointer = false;
        this.zone.removeEventListener("pointermove", moving);
        this.zone.removeEventListener("pointerup", done);
        this.zone.removeEventListener("pointercancel", done);
        move(moved, true);
      };
      this.zone.addEventListener("pointermove", moving);
      this.zone.addEventListener("pointerup", done);
      this.zone.addEventListener("pointercancel", done);
    }
  };
})(window.Cuesheet);
