// Zoom and scroll position of the timeline, and the minimap that shows the whole episode.
//
// The lanes are as wide as the zoom says and scroll inside #timeline, so everything on them keeps
// its place in percent of the episode.
"use strict";

(function (app) {
  const { make } = app;
  const STEPS_S = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];
  const FRAME_PX = 40; // a frame at the closest zoom
  const MANY = 24; // an episode with more subtasks opens zoomed in,
  const READABLE = 6; // with so many visible

  app.left = (episode, time) => `${(100 * time) / episode.end_s}%`;
  app.timeOf = (episode, frame) => (frame < episode.length ? episode.timestamps[frame] : episode.end_s);
  app.rulerStep = (wanted) => STEPS_S.find((step) => step >= wanted) ?? STEPS_S.at(-1);

  /** A time on the ruler: "0 s", "12", "0.5", "2:05", "1:02:05"; `step` sets the digits. */
  app.clock = function (seconds, step) {
    if (seconds === 0) return "0 s";
    if (seconds < 60) return step < 1 ? seconds.toFixed(1) : String(seconds);
    const two = (value) => String(value).padStart(2, "0");
    const whole = Math.floor(seconds + 1e-6);
    const rest = step < 1 ? (seconds % 60).toFixed(1).padStart(4, "0") : two(whole % 60);
    const minutes = Math.floor(whole / 60);
    return minutes < 60 ? `${minutes}:${rest}` : `${Math.floor(minutes / 60)}:${two(minutes % 60)}:${rest}`;
  };

  app.TimelineView = class {
    /** `seek(frame)` is called for a click on the minimap, `changed()` after a zoom or scroll. */
    constructor(seek, changed) {
      this.seek = seek;
      this.changed = changed;
      this.scroller = app.byId("timeline");
      this.map = app.byId("minimap");
      this.zoom = 1;
      this.wanted = 0;
      this.scroller.addEventListener("scroll", () => this.moved());
      this.scroller.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
      this.map.addEventListener("pointerdown", (event) => this.dragMap(event));
      for (const [id, factor] of [["zoom-in", 2], ["zoom-out", 0.5]]) app.byId(id).addEventListener("click", () => this.zoomBy(factor));
      app.byId("zoom-fit").addEventListener("click", () => this.fit());
      new ResizeObserver(() => this.lanes && this.moved()).observe(this.scroller);
    }

    open(episode, lanes) {
      this.episode = episode;
      this.lanes = lanes;
      this.time = 0;
      this.parts = make("div", { class: "parts" });
      this.box = make("div", { class: "window" });
      this.needle = make("div", { class: "needle" });
      this.map.replaceChildren(this.parts, this.box, this.needle);
      const { length } = episode.subtasks;
      this.setZoom(length > MANY ? length / READABLE : 1, 0, 0);
    }

    get width() {
      return this.scroller.clientWidth || 1;
    }

    get pxPerSecond() {
      return (this.width * this.zoom) / this.episode.end_s;
    }

    /** Scroll position in px. Browsers round it, which repeated zooming would add up. */
    get scrolled() {
      const { scrollLeft } = this.scroller;
      return Math.abs(this.wanted - scrollLeft) < 1 ? this.wanted : scrollLeft;
    }

    scrollTo(x) {
      this.scroller.scrollLeft = x;
      this.wanted = x;
    }

    /** First and last visible time, in seconds. */
    window() {
      const from = this.scrolled / this.pxPerSecond;
      return [from, Math.min(from + this.width / this.pxPerSecond, this.episode.end_s)];
    }

    /** Zoom so that `time` is `x` px from the left edge. */
    setZoom(zoom, time, x) {
      const most = Math.max(1, (this.episode.length * FRAME_PX) / this.width);
      this.zoom = Math.min(Math.max(zoom, 1), most);
      this.lanes.style.width = `${100 * this.zoom}%`;
      this.scrollTo(time * this.pxPerSecond - x);
      app.byId("zoom-out").disabled = app.byId("zoom-fit").disabled = this.zoom <= 1;
      app.byId("zoom-in").disabled = this.zoom >= most;
      this.moved();
    }

    /** Zoom around the playhead if it is visible, else around the middle. */
    zoomBy(factor) {
      const [from, to] = this.window();
      const time = this.time >= from && this.time <= to ? this.time : (from + to) / 2;
      this.setZoom(this.zoom * factor, time, (time - from) * this.pxPerSecond);
    }

    fit() {
      this.setZoom(1, 0, 0);
    }

    /** Scroll by a share of the visible width. */
    scrollBy(share) {
      this.scroller.scrollLeft += share * this.width;
    }

    /** Ctrl + wheel (or a pinch) zooms at the pointer. Other wheels scroll as everywhere else. */
    wheel(event) {
      if (!this.episode || !(event.ctrlKey || event.metaKey)) return;
      event.preventDefault();
      const x = event.clientX - this.scroller.getBoundingClientRect().left;
      const time = (this.scrolled + x) / this.pxPerSecond;
      this.setZoom(this.zoom * Math.exp(-event.deltaY / 300), time, x);
    }

    /** Keep the playhead visible, unless the pointer drags on the timeline. */
    follow(time, dragging) {
      this.time = time;
      this.needle.style.left = app.left(this.episode, time);
      const [from, to] = this.window();
      if (dragging || (time >= from && time <= to)) return;
      this.scroller.scrollLeft = (time - 0.2 * (to - from)) * this.pxPerSecond;
    }

    moved() {
      const [from, to] = this.window();
      Object.assign(this.box.style, { left: app.left(this.episode, from), width: app.left(this.episode, to - from) });
      this.changed();
    }

    drawMap(segmentation) {
      const { episode } = this;
      this.parts.replaceChildren(
        ...segmentation.map((subtask) => {
          const [start, end] = [app.timeOf(episode, subtask.start), app.timeOf(episode, subtask.end)];
          return make("i", { style: { left: app.left(episode, start), width: app.left(episode, end - start), background: `var(--c${app.colorOf(subtask.label)})` } });
        })
      );
    }

    /** A press on the minimap shows that time in the middle; dragging moves on. */
    dragMap(event) {
      if (event.button !== 0 || !this.episode) return;
      event.preventDefault();
      this.map.setPointerCapture(event.pointerId);
      const show = (moved) => {
        const box = this.map.getBoundingClientRect();
        const time = (Math.min(Math.max((moved.clientX - box.left) / box.width, 0), 1)) * this.episode.end_s;
        if (this.zoom > 1) this.scroller.scrollLeft = time * this.pxPerSecond - this.width / 2;
        else this.seek(app.frameAt(this.episode, time));
      };
      const done = () => this.map.removeEventListener("pointermove", show);
      this.map.addEventListener("pointermove", show);
      this.map.addEventListener("pointerup", done, { once: true });
      this.map.addEventListener("pointercancel", done, { once: true });
      show(event);
    }
  };
})(window.Cuesheet);
