// Loading of the site's data.
//
// Data files are scripts that call Cuesheet.deliver(name, value): a page that was opened from the
// file system may run scripts next to it, but may not fetch files.
"use strict";
window.Cuesheet = {};

(function (app) {
  const CACHED = 24; // episodes in memory
  const waiting = new Map(); // name -> {promise, resolve, reject}
  const cached = new Map(); // name -> value, least recently used first

  app.deliver = function (name, value) {
    waiting.get(name)?.resolve(value);
  };

  /** The value of data/{name}.js. Rejects with an Error whose message is for the reviewer. */
  app.load = function (name, { cache = false } = {}) {
    if (cached.has(name)) {
      const value = cached.get(name);
      cached.delete(name);
      cached.set(name, value);
      return Promise.resolve(value);
    }
    if (waiting.has(name)) return waiting.get(name).promise;
    const script = document.createElement("script");
    const request = {};
    request.promise = new Promise((resolve, reject) => Object.assign(request, { resolve, reject }));
    waiting.set(name, request);
    script.src = `data/${name}.js`;
    script.onerror = () => request.reject(new Error(`data/${name}.js cannot be loaded`));
    // Rejects a script that ran without delivering; after a delivery this does nothing.
    script.onload = () => request.reject(new Error(`data/${name}.js has unexpected content`));
    document.head.append(script);
    return request.promise
      .then((value) => {
        if (cache) cached.set(name, value);
        while (cached.size > CACHED) cached.delete(cached.keys().next().value);
        return value;
      })
      .finally(() => {
        waiting.delete(name);
        script.remove();
      });
  };

  app.episodeName = (index) => String(index).padStart(6, "0");

  /** A new element: make("div", {class: "a", onclick: f}, child, "text"). */
  app.make = function (tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (name === "style") Object.assign(element.style, value);
      else if (name === "value") element.value = value;
      else element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  };

  app.byId = (id) => document.getElementById(id);
  app.shortName = (camera) => camera.split(".").at(-1);
  /** Whether the agreement of samples is so low that a reviewer should look. */
  app.isLow = (agreement) => agreement < 0.5;
  app.seconds = (value) => `${value.toFixed(2)} s`;
})(window.Cuesheet);
