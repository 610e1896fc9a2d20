// Thumbnails above the timeline, decoded from the clip for the part of the episode that is visible.
"use strict";

(function (app) {
  const HEIGHT = 44; // px, as in review.css

  app.Thumbnails = class {
    constructor() {
      this.track = app.make("div", { class: "thumbnails", "aria-hidden": "true" });
      this.drawn = new Map(); // slot -> canvas
      this.wanted = [];
    }

    /** Show frames of `camera`, or nothing if it is null. */
    open(episode, camera) {
      this.episode = episode;
      this.camera = camera;
      this.clear();
      this.video?.removeAttribute("src");
      this.video?.load();
      this.video = null;
      this.track.hidden = !camera;
      if (!camera) return;
      const video = app.make("video", { src: app.clipUrl(episode, camera), preload: "auto" });
      video.muted = true;
      video.addEventListener("loadeddata", () => this.next());
      video.addEventListener("seeked", () => this.draw(video));
      this.video = video;
      if (this.shown) this.show(...this.shown);
    }

    clear() {
      this.drawn.clear();
      this.track.replaceChildren();
      this.wanted = [];
      this.slot = null;
    }

    /** Show the times `from` to `to` (s). Slots have fixed times, so scrolling reuses them. */
    show(from, to, pxPerSecond) {
      this.shown = [from, to, pxPerSecond];
      if (!this.camera) return;
      const width = (HEIGHT * this.camera.width) / this.camera.height;
      const step = width / pxPerSecond;
      if (step !== this.step) this.clear();
      this.step = step;
      const first = Math.max(0, Math.floor(from / step));
      const last = Math.ceil(to / step);
      for (const [slot, canvas] of this.drawn) {
        if (slot < first || slot >= last) {
          canvas.remove();
          this.drawn.delete(slot);
        }
      }
      this.wanted = [];
      for (let slot = first; slot < last; slot += 1) if (!this.drawn.has(slot) && slot !== this.slot) this.wanted.push(slot);
      this.next();
    }

    next() {
      if (!this.video || this.video.readyState < 2 || this.video.seeking || !this.wanted.length) return;
      this.slot = this.wanted.shift();
      const frame = app.frameAt(this.episode, Math.min((this.slot + 0.5) * this.step, this.episode.end_s));
      this.video.currentTime = this.episode.timestamps[frame] + 0.4 / this.episode.fps;
    }

    draw(video) {
      if (video !== this.video) return;
      if (this.slot !== null) {
        const { width, height } = this.camera;
        const canvas = app.make("canvas", { width: Math.round((HEIGHT * width) / height), height: HEIGHT });
        canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
        const start = this.slot * this.step;
        Object.assign(canvas.style, { left: app.left(this.episode, start), width: app.left(this.episode, Math.min(this.step, this.episode.end_s - start)) });
        this.drawn.set(this.slot, canvas);
        this.track.append(canvas);
        this.slot = null;
      }
      this.next();
    }
  };
})(window.Cuesheet);
