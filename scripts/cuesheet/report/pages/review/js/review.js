// The page: which episode is open, what is shown of it, what a person changes.
"use strict";

(function (app) {
  const { byId, make, cover } = app;
  const view = { episode: null, edits: null, past: [], future: [], chosen: null, frame: 0, state: null };
  let site;
  let keeper;

  app.colorOf = (label) => site.colors[label.trim().split(/\s+/)[0]?.toLowerCase().replace(/[.,;:!?]+$/, "")] ?? 7;

  const parts = () => view.edits.subtasks ?? view.model;
  /** Agreement of the samples of the model's subtask; null where there is none, or it was changed. */
  const agreement = (part) => view.episode.subtasks[view.model.findIndex((one) => cover.same(one, part))]?.agreement ?? null;
  const pairs = () => app.correctedPairs(view.episode, view.edits);

  const list = new app.List((index) => open(index));
  const player = new app.Player((frame) => showFrame(frame));
  const timeline = new app.Timeline({
    seek: (frame) => player.seek(frame),
    rename: (index) => table.focus(index),
    moveBoundary(index, frame, last) {
      player.pause();
      const moved = cover.moveBoundary(view.dragFrom ?? parts(), index, frame);
      view.dragFrom ??= parts();
      const place = moved[index].start;
      if (last) {
        view.dragging = null;
        const before = view.dragFrom;
        view.dragFrom = null;
        if (!cover.same(moved, before)) change({ subtasks: moved });
        else drawCover();
      } else {
        view.dragging = moved;
        drawCover();
      }
      player.seek(place);
    },
  });
  const table = new app.Table({
    /** A click on a row goes to its start, unless it is at work there already. */
    choose(index) {
      if (index === view.chosen) return;
      player.pause();
      player.seek(parts()[index].start);
    },
    typing: (index, text) => typing({ subtasks: cover.rename(parts(), index, text) }),
    rename: (index, text) => rename(index, text),
    merge: (index) => merge(index),
    remove: (index) => remove(index),
  });
  const questions = new app.Questions({
    change: (pair) => {
      const { frame_index, camera, type, question, answer } = pair;
      change({ vqa: { ...view.edits.vqa, [app.pairKey(pair)]: { frame_index, camera, type, question: question.trim(), answer } } });
    },
    remove: ({ frame_index, camera, type, corrected }) => {
      const key = app.pairKey({ frame_index, camera });
      const original = view.episode.pairs.find((pair) => app.pairKey(pair) === key);
      const vqa = { ...view.edits.vqa };
      if (original || !corrected) vqa[key] = { frame_index, camera, type: original?.type ?? type, delete: true };
      else delete vqa[key];
      change({ vqa });
    },
    restore: (pair) => {
      const vqa = { ...view.edits.vqa };
      delete vqa[app.pairKey(pair)];
      change({ vqa });
    },
    cancel: () => showFrame(view.frame),
    draw: (camera, done) => player.drawOn(camera, done),
    redraw(pair) {
      keeper.keepForm(view.episode.index, pair);
      player.draw(pair ? [pair] : player.playing ? [] : pairsAt(view.frame), pair);
    },
    size: (camera) => view.episode.cameras.find((one) => one.name === camera),
  });

  const pairsAt = (frame) => pairs().filter((pair) => pair.frame_index === frame);

  // ---- opening ----

  async function start() {
    site = await app.load("site");
    document.title = `${site.dataset} · Cuesheet review`;
    byId("dataset").textContent = site.dataset;
    byId("hints").replaceChildren(...site.hints.map((hint) => app.make("div", {}, hint)));
    byId("sort").querySelector("[value=agreement]").hidden = !site.sampled;
    keeper = new app.Keeper(site.dataset, hear);
    await keeper.connect();
    const wanted = location.hash.match(/episode=(\d+)/);
    const opened = wanted ? open(Number(wanted[1])) : null;
    for (let chunk = 0; chunk < site.chunks; chunk += 1) list.add(await app.load(`list/${String(chunk).padStart(4, "0")}`));
    await opened;
    if (!wanted && list.shown.length) open(list.shown[0].index);
    else list.select(view.episode?.index ?? null);
    window.addEventListener("hashchange", () => {
      const match = location.hash.match(/episode=(\d+)/);
      if (match && Number(match[1]) !== view.episode?.index) open(Number(match[1]));
    });
  }

  async function open(index) {
    finishTyping();
    questions.leave();
    list.select(index);
    view.wanted = index;
    let episode;
    let file;
    try {
      episode = await app.load(`episodes/${app.episodeName(index)}`, { keep: true });
      if (view.wanted !== index) return;
      view.episode = episode;
      notice(null);
      file = await keeper.open(episode);
    } catch (error) {
      if (view.wanted === index) fail(`Episode ${index} cannot be opened: ${error.message}.`);
      return;
    }
    if (view.wanted !== index) return;
    view.model = cover.of(episode, episode.subtasks);
    view.edits = app.toEdits(episode, file);
    Object.assign(view, { past: [], future: [], chosen: null, frame: 0, dragging: null, dragFrom: null });
    history.replaceState(null, "", `#episode=${index}`);
    byId("main").hidden = false;
    byId("empty").hidden = true;
    byId("episode-name").textContent = `Episode ${index}`;
    byId("task").textContent = episode.task;
    byId("made").textContent = [
      `${episode.end_s.toFixed(1)} s`, `${episode.length} frames`, `${episode.fps} fps`,
      site.demo ? `${site.model} (demo model, not a language model)` : site.model,
    ].filter(Boolean).join(" · ");
    const warnings = byId("warnings");
    warnings.hidden = !episode.warnings.length;
    warnings.replaceChildren(...episode.warnings.map((text) => make("div", {}, `⚠ ${text}`)));
    if (file && file.length !== undefined && file.length !== episode.length) {
      notice(`The corrections of this episode are for ${file.length} frames, and it has ${episode.length}: it was recorded again. They are not applied.`);
    }
    timeline.open(episode);
    table.open(episode);
    questions.open(episode);
    player.open(episode);
    redraw();
    const form = keeper.form(index);
    if (form && form.frame_index < episode.length) {
      player.seek(form.frame_index);
      questions.edit(form);
    }
    const neighbor = list.neighbor(1);
    if (neighbor !== null) app.load(`episodes/${app.episodeName(neighbor)}`, { keep: true }).catch(() => {});
  }

  function fail(message) {
    byId("main").hidden = true;
    byId("empty").hidden = false;
    byId("empty").replaceChildren(make("p", {}, message));
  }

  // ---- showing ----

  function redraw() {
    drawCover();
    timeline.drawPairs(pairs());
    table.draw(parts(), agreement);
    table.choose(view.chosen);
    for (const verdict of ["good", "bad"]) byId(verdict).setAttribute("aria-pressed", String(view.edits.verdict === verdict));
    if (document.activeElement !== byId("note")) byId("note").value = view.edits.note;
    byId("undo").disabled = !view.past.length;
    byId("redo").disabled = !view.future.length;
    byId("reset").disabled = !view.edits.subtasks;
    const file = app.toCorrection(site.dataset, view.episode, view.edits);
    byId("download").hidden = keeper.serves || !file;
    list.update(view.episode.index, { verdict: view.edits.verdict, corrected: Boolean(view.edits.subtasks || Object.keys(view.edits.vqa).length) });
    showFrame(view.frame);
  }

  function drawCover() {
    timeline.drawSubtasks(view.dragging ?? parts(), view.chosen, agreement);
  }

  function showFrame(frame) {
    view.frame = frame;
    const { episode } = view;
    if (!episode || !view.edits) return;
    const current = view.dragging ?? parts();
    const corrected = Boolean(view.dragging || (view.edits.subtasks && !cover.same(view.edits.subtasks, view.model)));
    const state = app.stateAt(episode, frame, current, corrected);
    timeline.showFrame(frame);
    byId("clock").textContent = `${state.time.toFixed(2)} / ${episode.end_s.toFixed(2)} s  frame ${frame}`;
    byId("now-time").textContent = app.seconds(state.time);
    byId("play").textContent = player.playing ? "Pause" : "Play";
    if (!view.dragging && state.position >= 0) choose(state.position);
    drawState(state);
    const here = pairsAt(frame);
    if (!questions.form) player.draw(player.playing ? [] : here);
    questions.show(here, nextQuestion(frame));
    byId("questions-count").textContent = here.length ? `at frame ${frame}` : "";
  }

  function nextQuestion(frame) {
    const later = pairs().find((pair) => pair.frame_index > frame);
    return later ? `None at this frame; the next at ${app.seconds(view.episode.timestamps[later.frame_index])} (key “.”).` : "None at this frame.";
  }

  function drawState(state) {
    const key = JSON.stringify(state);
    if (key === view.state) return;
    view.state = key;
    const rows = [
      ["task", state.tasks[0] ?? view.episode.task, state.tasks.length > 1 ? `and ${state.tasks.length - 1} ways to say it` : "", state.tasks.slice(1).join("\n")],
      ["subtask", state.subtask],
      ["plan", state.plan],
      ["memory", state.memory, state.memory && state.memoryIsOld ? "made anew by the next run" : ""],
      ...state.interjections.map((text) => ["interjection", text]),
      ...state.speech.map((text) => ["speech", text]),
    ];
    byId("state").replaceChildren(
      ...rows.flatMap(([name, text, extra, more]) => [
        make("dt", { class: name }, name),
        make("dd", { class: `${name}${text ? "" : " none"}`, "data-style": name }, text || "none",
          extra ? make("div", { class: "quiet", title: more || null }, extra) : null),
      ])
    );
  }

  /** The subtask at the playhead is the one that keys work on. */
  function choose(index) {
    if (index === view.chosen) return;
    view.chosen = index;
    drawCover();
    table.choose(index);
  }

  // ---- changing ----

  /** Every change goes through here: remembered for undo, shown, kept. */
  function change(changes) {
    view.past.push(view.edits);
    view.future = [];
    apply({ ...view.edits, ...changes });
  }

  /** What is being typed is kept too, before it counts as a change. */
  function typing(changes) {
    keeper.keep(view.episode.index, app.toCorrection(site.dataset, view.episode, { ...view.edits, ...changes }));
  }

  function apply(edits) {
    if (edits.subtasks && cover.same(edits.subtasks, view.model) && !view.episode.correction?.subtasks) edits = { ...edits, subtasks: null };
    view.edits = edits;
    view.chosen = null;
    redraw();
    keeper.keep(view.episode.index, app.toCorrection(site.dataset, view.episode, view.edits));
  }

  function undo(from, to) {
    const edits = view[from].pop();
    if (!edits) return;
    view[to].push(view.edits);
    apply(edits);
  }

  function changeCover(changed) {
    if (!cover.same(changed, parts())) change({ subtasks: changed });
  }

  const rename = (index, label) => (label.trim() ? changeCover(cover.rename(parts(), index, label)) : table.draw(parts(), agreement));
  const merge = (index) => changeCover(cover.mergeWithNext(parts(), index), index);
  const remove = (index) => changeCover(cover.remove(parts(), index));
  const split = () => changeCover(cover.split(parts(), view.frame));
  const judge = (verdict) => change({ verdict: view.edits.verdict === verdict ? null : verdict });

  /** A text field that is left in the middle of typing fires no change event by itself. */
  function finishTyping() {
    if (document.activeElement?.matches?.("input, textarea")) document.activeElement.blur();
  }

  // ---- what the keeper says ----

  function hear(index, kind, detail) {
    if (index !== view.episode?.index) return;
    const words = { saving: "saving…", saved: "saved", draft: "kept in this browser", unsaved: "not kept: download it", failed: "not saved", conflict: "not saved" };
    byId("saved").textContent = words[kind];
    byId("saved").className = kind;
    if (kind === "failed") notice(`Not saved: ${detail}.`);
    else if (kind === "conflict") conflict(index, detail);
    else notice(null);
  }

  function conflict(index, theirs) {
    const settle = (mine) => async () => {
      const file = await keeper.resolve(index, mine);
      if (index !== view.episode.index) return;
      notice(null);
      view.edits = app.toEdits(view.episode, file);
      redraw();
    };
    notice(
      "This episode was also corrected elsewhere since you opened it. Nothing is lost: whichever you do not keep is set aside.",
      make("button", { class: "primary", onclick: settle(true) }, "Keep mine"),
      make("button", { onclick: settle(false) }, "Take the other"),
      make("button", { onclick: () => app.download(app.toCorrection(site.dataset, view.episode, view.edits)) }, "Download mine"),
      theirs.file ? make("details", {}, make("summary", {}, "The other"), make("pre", {}, JSON.stringify(theirs.file, null, 2))) : make("span", {}, "The other: no corrections.")
    );
  }

  function notice(text, ...more) {
    byId("notice").hidden = !text;
    byId("notice").replaceChildren(...(text ? [make("div", {}, text), ...more] : []));
  }

  // ---- controls ----

  const press = (id, action) => byId(id).addEventListener("click", action);
  press("play", () => player.toggle());
  press("back", () => step(-1));
  press("forward", () => step(1));
  press("undo", () => undo("past", "future"));
  press("redo", () => undo("future", "past"));
  press("add-question", addQuestion);
  press("split", split);
  press("reset", () => change({ subtasks: null }));
  press("good", () => judge("good"));
  press("bad", () => judge("bad"));
  press("download", () => app.download(app.toCorrection(site.dataset, view.episode, view.edits)));
  press("help", () => byId("keys").showModal());
  byId("rate").addEventListener("input", (event) => { player.setRate(Number(event.target.value)); event.target.blur(); });
  byId("note").addEventListener("input", (event) => typing({ note: event.target.value.trim() }));
  byId("note").addEventListener("change", (event) => event.target.value.trim() !== view.edits.note && change({ note: event.target.value.trim() }));

  function step(frames) {
    player.pause();
    player.seek(view.frame + frames);
  }

  function jumpToQuestion(direction) {
    player.pause();
    const frames = pairs().map((pair) => pair.frame_index);
    const next = direction > 0 ? frames.find((frame) => frame > view.frame) : frames.findLast((frame) => frame < view.frame);
    if (next !== undefined) player.seek(next);
  }

  function addQuestion() {
    const pair = questions.form ? null : questions.blank(pairs(), view.frame);
    if (!pair) return;
    player.pause();
    player.seek(pair.frame_index);
    questions.edit(pair);
    byId("questions").querySelector("input").focus();
  }

  function edgeHere(side) {
    const index = side === "start" ? view.chosen : view.chosen + 1; // of the boundary
    if (index > 0 && index < parts().length) changeCover(cover.moveBoundary(parts(), index, view.frame));
  }

  const KEYS = {
    " ": () => player.toggle(),
    ArrowLeft: (event) => step(event.shiftKey ? -Math.round(view.episode.fps) : -1),
    ArrowRight: (event) => step(event.shiftKey ? Math.round(view.episode.fps) : 1),
    ",": () => jumpToQuestion(-1),
    ".": () => jumpToQuestion(1),
    "[": () => edgeHere("start"),
    "]": () => edgeHere("end"),
    a: addQuestion,
    s: split,
    m: () => merge(view.chosen),
    e: () => table.focus(view.chosen),
    g: () => judge("good"),
    b: () => judge("bad"),
  };

  document.addEventListener("keydown", (event) => {
    if (event.target.matches("input, textarea, select") || byId("keys").open || event.altKey) return;
    const next = { j: 1, ArrowDown: 1, k: -1, ArrowUp: -1 }[event.key];
    if (event.ctrlKey || event.metaKey) {
      if (event.key.toLowerCase() !== "z" || !view.edits) return;
      undo(...(event.shiftKey ? ["future", "past"] : ["past", "future"]));
    } else if (next) {
      const index = list.neighbor(next);
      if (index !== null && index !== view.episode?.index) open(index);
    } else if (event.key === "/") byId("search").focus();
    else if (event.key === "?") byId("keys").showModal();
    else if (view.edits && KEYS[event.key]) KEYS[event.key](event);
    else return;
    event.preventDefault();
  });

  start().catch((error) => fail(`The page cannot be opened: ${error.message}.`));
})(window.Cuesheet);
