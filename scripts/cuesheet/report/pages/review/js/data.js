// Loading of the site's data.
//
// Data files are scripts that call Cuesheet.deliver(name, value): a page that was opened from the
// file system may run scripts beside it, but may not fetch files.
"use strict";
window.Cuesheet = {};

(function (app) {
  const KEPT = 24; // episodes kept in memory
  const waiting = new Map(); // name -> {promise, resolve, reject}
  const kept = new Map(); // name -> value, in order of use

  app.deliver = function (name, value) {
    waiting.get(name)?.resolve(value);
  };

  /** The value of data/{name}.js. Rejects with an Error that a person can read. */
  app.load = function (name, { keep = false } = {}) {
    if (kept.has(name)) {
      const value = kept.get(name);
      kept.delete(name);
      kept.set(name, value);
      return Promise.resolve(value);
    }
    if (waiting.has(name)) return waiting.get(name).promise;
    const script = document.createElement("script");
    const request = {};
    request.promise = new Promise((resolve, reject) => Object.assign(request, { resolve, reject }));
    waiting.set(name, request);
    script.src = `data/${name}.js`;
    script.onerror = () => request.reject(new Error(`data/${name}.js cannot be loaded`));
    // A script that ran without delivering is of another form; after a delivery this does nothing.
    script.onload = () => request.reject(new Error(`data/${name}.js holds something else`));
    document.head.append(script);
    return request.promise
      .then((value) => {
        if (keep) kept.set(name, value);
        while (kept.size > KEPT) kept.delete(kept.keys().next().value);
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
  /** Whether samples agree so little that a person had better look. */
  app.isLow = (agreement) => agreement < 0.5;
  app.seconds = (value) => `${value.toFixed(2)} s`;
})(window.Cuesheet);
