// Buttons, fields and keyboard shortcuts of the page.
"use strict";

(function (app) {
  const { byId } = app;

  /** Connect the controls to `page`, the commands of review.js. */
  app.bindControls = function (page) {
    const press = (id, action) => byId(id).addEventListener("click", action);
    press("play", () => page.player.toggle());
    press("back", () => page.step(-1));
    press("forward", () => page.step(1));
    press("undo", () => page.edits().undo());
    press("redo", () => page.edits().redo());
    press("add-question", page.addQuestion);
    press("split", page.split);
    press("reset", () => page.edits().change({ subtasks: null }));
    press("good", () => page.edits().judge("good"));
    press("bad", () => page.edits().judge("bad"));
    press("done", page.done);
    press("done-next", page.doneAndNext);
    press("download", () => app.download(page.edits().file()));
    press("help", () => byId("keys").showModal());
    press("copy", copyCommand);
    byId("rate").addEventListener("input", (event) => {
      page.player.setRate(Number(event.target.value));
      event.target.blur();
    });
    byId("reviewer").addEventListener("input", (event) => app.storage.set("cuesheet/reviewer", event.target.value.trim()));
    byId("note").addEventListener("input", (event) => page.edits().typing({ note: event.target.value.trim() }));
    byId("note").addEventListener("change", (event) => {
      const note = event.target.value.trim();
      if (note !== page.edits().now.note) page.edits().change({ note });
    });
    document.addEventListener("keydown", (event) => keyDown(event, page, keysOf(page)));
  };

  async function copyCommand() {
    const code = byId("command");
    getSelection().selectAllChildren(code);
    try {
      await navigator.clipboard.writeText(code.textContent);
      byId("copy").textContent = "Copied";
    } catch {
      byId("copy").textContent = "Press Ctrl+C"; // no permission; the command is selected
    }
    setTimeout(() => (byId("copy").textContent = "Copy"), 2000);
  }

  function keysOf(page) {
    return {
      " ": () => page.player.toggle(),
      ArrowLeft: (event) => (event.shiftKey ? page.second(-1) : page.step(-1)),
      ArrowRight: (event) => (event.shiftKey ? page.second(1) : page.step(1)),
      Home: page.firstFrame,
      End: page.lastFrame,
      ",": () => page.jumpToQuestion(-1),
      ".": () => page.jumpToQuestion(1),
      p: () => page.jumpToSubtask(-1),
      n: () => page.jumpToSubtask(1),
      "+": () => page.timeline.zoomBy(2),
      "=": () => page.timeline.zoomBy(2),
      "-": () => page.timeline.zoomBy(0.5),
      0: () => page.timeline.fit(),
      "<": () => page.timeline.scrollBy(-0.8),
      ">": () => page.timeline.scrollBy(0.8),
      "[": () => page.edgeHere("start"),
      "]": () => page.edgeHere("end"),
      a: page.addQuestion,
      i: page.addTalk,
      s: page.split,
      m: page.merge,
      e: () => page.table.focus(page.chosen()),
      g: () => page.edits().judge("good"),
      b: () => page.edits().judge("bad"),
      d: page.doneAndNext,
    };
  }

  function keyDown(event, page, keys) {
    if (byId("keys").open) return;
    if (event.key === "Escape" && (page.questions.form || page.texts.form !== null)) {
      if (page.questions.form) page.questions.cancel();
      else page.texts.cancel();
      return;
    }
    if (event.target.matches("input, textarea, select") || event.altKey) return;
    // A button that the keyboard has focused is pressed with space.
    if (event.key === " " && event.target.matches("button:focus-visible, summary:focus-visible")) return;
    const next = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[event.key];
    if (event.ctrlKey || event.metaKey) {
      if (event.key.toLowerCase() !== "z" || !page.isOpen()) return;
      if (event.shiftKey) page.edits().redo();
      else page.edits().undo();
    } else if (next) {
      const index = page.list.neighbor(next);
      if (index !== null && index !== page.index()) page.open(index);
    } else if (event.key === "/") byId("search").focus();
    else if (event.key === "?") byId("keys").showModal();
    else if (page.isOpen() && keys[event.key]) keys[event.key](event);
    else return;
    event.preventDefault();
  }
})(window.Cuesheet);
