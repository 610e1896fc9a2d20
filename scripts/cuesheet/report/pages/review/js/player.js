// The clips of all cameras, synchronized, with boxes and points drawn on them.
"use strict";

(function (app) {
  const MAX_LAG_S = 0.06;
  const SVG = "http://www.w3.org/2000/svg";

  const shape = (tag, attributes, text) => {
    const element = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    if (text) element.textContent = text;
    return element;
  };

  /** Move a label to the left, or shorten it, until it fits into `width`. */
  function keepInside(text, width) {
    const margin = width / 50;
    const room = width - 2 * margin;
    const label = text.textContent;
    for (let kept = label.length - 1; kept > 0 && text.getComputedTextLength() > room; kept -= 1) {
      text.textContent = `${label.slice(0, kept)}…`;
    }
    const x = Math.min(Number(text.getAttribute("x")), width - margin - text.getComputedTextLength());
    text.setAttribute("x", Math.max(x, margin));
  }

  app.clipUrl = (episode, camera) =>
    `../clips/${camera.name.split("/").map(encodeURIComponent).join("/")}/episode_${app.episodeName(episode.index)}.mp4`;

  app.Player = class {
    /**
     * `moved(frame)` is called when another frame is shown, `arranged()` when a camera was hidden,
     * shown or enlarged.
     */
    constructor(moved, arranged) {
      this.moved = moved;
      this.arranged = arranged;
      this.views = []; // {camera, video, overlay, box}
      this.hidden = new Set(); // names of cameras
      this.large = null; // name of the enlarged camera
      this.playing = false;
      this.rate = 1;
    }

    open(episode) {
      this.pause();
      this.episode = episode;
      this.frame = 0;
      this.drawing = null;
      this.views = episode.cameras.map((camera) => this.view(camera));
      app.byId("videos").replaceChildren(...this.views.map((view) => view.box));
      this.arrange();
      this.moved(0);
    }

    /** The first camera that is not hidden, or null. */
    get firstShown() {
      return this.views.find(({ camera }) => !this.hidden.has(camera.name))?.camera ?? null;
    }

    arrange() {
      for (const { camera, box } of this.views) {
        box.hidden = this.hidden.has(camera.name);
        box.classList.toggle("large", camera.name === this.large);
        box.querySelector(".enlarge").textContent = camera.name === this.large ? "Reduce" : "Enlarge";
      }
      app.byId("videos").classList.toggle("enlarged", this.views.some(({ camera }) => camera.name === this.large));
      app.byId("hidden-cameras").replaceChildren(
        ...this.views.filter(({ box }) => box.hidden).map(({ camera }) =>
          app.make("button", { title: `Show ${camera.name}`, onclick: () => this.show(camera.name) }, `Show ${app.shortName(camera.name)}`)
        )
      );
      this.arranged();
    }

    hide(name) {
      this.hidden.add(name);
      if (this.large === name) this.large = null;
      this.arrange();
    }

    show(name) {
      this.hidden.delete(name);
      this.arrange();
    }

    enlarge(name) {
      this.large = this.large === name ? null : name;
      this.arrange();
    }

    view(camera) {
      const video = app.make("video", {
        src: app.clipUrl(this.episode, camera),
        "aria-label": `Clip of ${camera.name}`,
        preload: "auto",
        muted: true,
        playsinline: true,
      });
      video.muted = true;
      const overlay = shape("svg", { viewBox: `0 0 ${camera.width} ${camera.height}`, class: "overlay" });
      const missing = app.make("div", { class: "missing", hidden: true }, "This clip cannot be played.");
      video.addEventListener("error", () => (missing.hidden = false));
      video.addEventListener("loadeddata", () => this.place(video));
      const frame = app.make("div", { class: "frame", style: { aspectRatio: `${camera.width} / ${camera.height}` } }, video, missing);
      frame.append(overlay);
      const short = app.shortName(camera.name);
      const caption = app.make(
        "figcaption", { class: "quiet" },
        app.make("span", { class: "camera", title: camera.name },
          app.make("span", {}, camera.name.slice(0, camera.name.length - short.length)), app.make("span", { class: "short" }, short)),
        app.make("button", { class: "enlarge", onclick: () => this.enlarge(camera.name) }, "Enlarge"),
        app.make("button", { onclick: () => this.hide(camera.name) }, "Hide")
      );
      const view = { camera, video, overlay, box: app.make("figure", { "data-camera": camera.name }, frame, caption) };
      this.listen(view);
      return view;
    }

    /** Seek into the frame's time, not to its start, so that rounding never shows its neighbor. */
    place(video) {
      video.currentTime = this.episode.timestamps[this.frame] + 0.4 / this.episode.fps;
    }

    seek(frame) {
      this.frame = Math.min(Math.max(frame, 0), this.episode.length - 1);
      for (const { video } of this.views) if (video.readyState) this.place(video);
      this.startedAt = performance.now();
      this.startFrame = this.frame;
      this.moved(this.frame);
    }

    toggle() {
      if (this.playing) this.pause();
      else this.play();
    }

    play() {
      if (this.frame >= this.episode.length - 1) this.seek(0);
      this.playing = true;
      this.startedAt = performance.now();
      this.startFrame = this.frame;
      for (const { video } of this.views) {
        video.playbackRate = this.rate;
        video.play().catch(() => {});
      }
      this.moved(this.frame);
      requestAnimationFrame(() => this.tick());
    }

    pause() {
      if (!this.playing) return;
      this.playing = false;
      for (const { video } of this.views) video.pause();
      this.seek(this.frame);
    }

    setRate(rate) {
      this.rate = rate;
      this.startedAt = performance.now();
      this.startFrame = this.frame;
      for (const { video } of this.views) video.playbackRate = rate;
    }

    tick() {
      if (!this.playing) return;
      const leader = this.views.find(({ video }) => video.readyState >= 2 && !video.error)?.video;
      const { timestamps, length } = this.episode;
      const time = leader
        ? leader.currentTime
        : timestamps[this.startFrame] + (this.rate * (performance.now() - this.startedAt)) / 1000;
      const frame = Math.max(0, app.lastNotAfter(timestamps, time + 1e-3));
      for (const { video } of this.views) {
        if (video !== leader && video.readyState >= 2 && Math.abs(video.currentTime - time) > MAX_LAG_S) video.currentTime = time;
      }
      if (frame !== this.frame) {
        this.frame = frame;
        this.moved(frame);
      }
      if (leader?.ended || frame >= length - 1) this.pause();
      else requestAnimationFrame(() => this.tick());
    }

    /** Draw the answers of `pairs`, all of one frame. `edited`: the pair in the form. */
    draw(pairs, edited) {
      for (const { camera, overlay } of this.views) {
        const shapes = [];
        for (const pair of pairs.filter((one) => one.camera === camera.name)) {
          const mark = pair === edited ? "edited" : "";
          for (const { bbox, label } of pair.answer.detections ?? []) {
            const [x0, y0, x1, y1] = bbox;
            shapes.push(shape("rect", { x: x0, y: y0, width: Math.max(x1 - x0, 0), height: Math.max(y1 - y0, 0), class: mark }));
            const size = camera.height / 22;
            const above = y0 > size * 1.3 ? y0 - size * 0.35 : y1 + size;
            shapes.push(shape("text", { x: x0, y: Math.min(above, camera.height - size * 0.35), "font-size": size }, label));
          }
          if (pair.answer.point) {
            const [x, y] = pair.answer.point;
            shapes.push(shape("circle", { cx: x, cy: y, r: camera.height / 45, class: mark }));
          }
        }
        overlay.replaceChildren(...shapes);
        for (const text of overlay.querySelectorAll("text")) keepInside(text, camera.width);
      }
    }

    /** Let the reviewer draw on the image of `camera`: done({point, bbox}, last) in its pixels. */
    drawOn(camera, done) {
      this.drawing = done ? { camera, done } : null;
      for (const view of this.views) view.overlay.classList.toggle("drawable", Boolean(done) && view.camera.name === camera);
    }

    listen({ camera, overlay }) {
      let from = null;
      const place = (event) => {
        const box = overlay.getBoundingClientRect();
        const limit = (value, most) => Math.round(Math.min(Math.max(value, 0), most) * 10) / 10;
        return [
          limit(((event.clientX - box.left) / box.width) * camera.width, camera.width),
          limit(((event.clientY - box.top) / box.height) * camera.height, camera.height),
        ];
      };
      const send = (event, last) => {
        const [x, y] = place(event);
        const ordered = [Math.min(from[0], x), Math.min(from[1], y), Math.max(from[0], x), Math.max(from[1], y)];
        this.drawing.done({ point: [x, y], bbox: ordered }, last);
      };
      overlay.addEventListener("pointerdown", (event) => {
        if (this.drawing?.camera !== camera.name) return;
        overlay.setPointerCapture(event.pointerId);
        from = place(event);
        event.preventDefault();
      });
      overlay.addEventListener("pointermove", (event) => from && this.drawing && send(event, false));
      overlay.addEventListener("pointerup", (event) => {
        if (from && this.drawing) send(event, true);
        from = null;
      });
    }
  };
})(window.Cuesheet);
