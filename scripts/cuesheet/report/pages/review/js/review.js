// The page: which episode is open, what is shown of it, and how the parts work together.
"use strict";

(function (app) {
  const { byId, make, segmentation } = app;
  const WRITE_ADDRESS_MS = 400;
  const view = { episode: null, wanted: null, chosen: null, frame: 0, state: null, dragging: null };
  let site;
  let keeper;
  let edits;

  app.colorOf = (label) => site.colors[label.trim().split(/\s+/)[0]?.toLowerCase().replace(/[.,;:!?]+$/, "")] ?? 7;

  const agreement = (subtask) => edits.agreement(subtask);
  const shownSegmentation = () => view.dragging ?? edits.segmentation;
  const pairsAt = (frame) => edits.pairs.filter((pair) => pair.frame_index === frame);

  const list = new app.List((index) => open(index));
  const player = new app.Player(
    (frame) => showFrame(frame),
    () => view.episode && timeline.thumbnails.open(view.episode, player.firstShown)
  );
  const timeline = new app.Timeline({
    seek: (frame) => player.seek(frame),
    rename: (index) => table.focus(index),
    moveBoundary(index, frame, last) {
      player.pause();
      const moved = segmentation.moveBoundary(edits.segmentation, index, frame);
      view.dragging = last ? null : moved;
      if (last) edits.changeSegmentation(moved);
      else {
        drawSegmentation();
        table.drawTimes(moved);
      }
      player.seek(moved[index].start);
    },
  });
  const table = new app.Table({
    /** A click on a row seeks to its start, unless the playhead is in it already. */
    choose(index) {
      if (index === view.chosen) return;
      player.pause();
      player.seek(edits.segmentation[index].start);
    },
    typing: (index, text) => edits.typing({ subtasks: segmentation.rename(edits.segmentation, index, text) }),
    rename: (index, text) => (text.trim() ? edits.changeSegmentation(segmentation.rename(edits.segmentation, index, text)) : redraw()),
    cancel: () => edits.cancel(),
    merge: (index) => edits.changeSegmentation(segmentation.mergeWithNext(edits.segmentation, index)),
    remove: (index) => edits.changeSegmentation(segmentation.remove(edits.segmentation, index)),
    retime(index, seconds) {
      if (seconds === null) {
        redraw();
        return;
      }
      const moved = segmentation.moveBoundary(edits.segmentation, index, app.frameAt(view.episode, seconds));
      edits.changeSegmentation(moved);
      player.pause();
      player.seek(moved[index].start);
    },
  });
  const questions = new app.Questions({
    change: (pair) => edits.setQuestion(pair),
    remove: (pair) => edits.removeQuestion(pair),
    restore: (pair) => edits.restoreQuestion(pair),
    cancel: () => showFrame(view.frame),
    seek: (frame) => player.seek(frame),
    draw: (camera, done) => player.drawOn(camera, done),
    redraw(pair) {
      keeper.keepForm(view.episode.index, pair);
      drawPairs();
    },
    size: (camera) => view.episode.cameras.find((one) => one.name === camera),
  });
  const texts = new app.Texts({
    rephrasings: (rephrasings) => edits.change({ rephrasings }),
    memory: (index, text) => edits.changeSegmentation(segmentation.setMemory(edits.segmentation, index, text)),
    typeMemory: (index, text) => edits.typing({ subtasks: segmentation.setMemory(edits.segmentation, index, text) }),
    talk: (frame, talk) => edits.setTalk(frame, talk),
    resetTalks: () => edits.change({ talks: null }),
    cancel: () => edits.cancel(),
  });

  // ---- opening ----

  async function start() {
    site = await app.load("site");
    document.title = `${site.dataset} · Cuesheet review`;
    byId("dataset").textContent = site.dataset;
    byId("hints").replaceChildren(...site.hints.map((hint) => app.make("div", {}, hint)));
    byId("sort").querySelector("[value=agreement]").hidden = !site.sampled;
    keeper = new app.Keeper(site.dataset, hear);
    byId("reviewer").value = app.storage.get("cuesheet/reviewer") ?? "";
    edits = new app.Edits(site.dataset, keeper, redraw, () => byId("reviewer").value.trim());
    await keeper.connect();
    byId("command").textContent = keeper.session?.command ?? site.command;
    list.setMarks(await keeper.marks());
    const wanted = place();
    const opened = wanted ? open(wanted.index, wanted) : null;
    for (let chunk = 0; chunk < site.chunks; chunk += 1) list.add(await app.load(`list/${String(chunk).padStart(4, "0")}`));
    await opened;
    if (!wanted && list.shown.length) open(list.shown[0].index, { replace: true });
    else list.select(view.episode?.index ?? null);
    // Back and Forward of the browser, and a link to another place of the page.
    window.addEventListener("popstate", () => {
      const there = place();
      if (!there) return;
      if (there.index !== view.episode?.index) open(there.index, there);
      else if (there.time !== null) seekTo(there.time);
    });
  }

  /** The place in the address: `#episode=2&t=3.5`; null without an episode. */
  function place() {
    const episode = location.hash.match(/\bepisode=(\d+)/);
    const time = location.hash.match(/\bt=(\d+(?:\.\d+)?)/);
    return episode ? { index: Number(episode[1]), time: time ? Number(time[1]) : null, replace: true } : null;
  }

  const address = (index, time) => `#episode=${index}${time ? `&t=${Number(time.toFixed(3))}` : ""}`;

  function seekTo(time) {
    player.pause();
    player.seek(app.frameAt(view.episode, time));
  }

  /** Open an episode at `time` (s). `replace`: the address is there already, no new history entry. */
  async function open(index, { time = null, replace = false } = {}) {
    finishTyping();
    questions.leave();
    texts.leave();
    list.select(index);
    view.wanted = index;
    let episode;
    let file;
    try {
      episode = await app.load(`episodes/${app.episodeName(index)}`, { cache: true });
      if (view.wanted !== index) return;
      view.episode = null; // until its corrections are there
      notice(null);
      file = await keeper.open(episode);
    } catch (error) {
      if (view.wanted === index) fail(`Episode ${index} cannot be opened: ${error.message}.`);
      return;
    }
    if (view.wanted !== index) return;
    edits.open(episode, file);
    Object.assign(view, { episode, chosen: null, frame: 0, dragging: null, state: null });
    const there = address(index, time);
    if (replace) history.replaceState(null, "", there);
    else if (location.hash !== there) history.pushState(null, "", there);
    showHead(episode);
    if (file && file.length !== undefined && file.length !== episode.length) {
      notice(`The corrections of this episode were made for ${file.length} frames, but it has ${episode.length}. It was recorded again, so they are not applied.`);
    }
    timeline.open(episode);
    table.open(episode);
    questions.open(episode);
    texts.open(episode);
    player.open(episode);
    redraw();
    if (time !== null) seekTo(time);
    const form = keeper.form(index);
    if (form && form.frame_index < episode.length) {
      player.seek(form.frame_index);
      questions.edit(form);
    }
    const neighbor = list.neighbor(1);
    if (neighbor !== null) app.load(`episodes/${app.episodeName(neighbor)}`, { cache: true }).catch(() => {});
  }

  function showHead(episode) {
    byId("main").hidden = false;
    byId("empty").hidden = true;
    byId("episode-name").textContent = `Episode ${episode.index}`;
    byId("task").textContent = episode.task;
    byId("made").textContent = [
      `${episode.end_s.toFixed(1)} s`, `${episode.length} frames`, `${episode.fps} fps`,
      site.demo ? `${site.model} (demo model, not a language model)` : site.model,
    ].filter(Boolean).join(" · ");
    const warnings = byId("warnings");
    warnings.hidden = !episode.warnings.length;
    warnings.replaceChildren(...episode.warnings.map((text) => make("div", {}, `⚠ ${text}`)));
  }

  function fail(message) {
    byId("main").hidden = true;
    byId("empty").hidden = false;
    byId("empty").replaceChildren(make("p", {}, message));
  }

  // ---- showing ----

  function redraw() {
    const { now } = edits;
    view.chosen = null;
    drawSegmentation();
    timeline.drawPairs(edits.pairs);
    timeline.drawTalks(edits.talks);
    timeline.drawMemory(app.memories(view.episode, edits.segmentation));
    table.draw(edits.segmentation, agreement);
    for (const verdict of ["good", "bad"]) byId(verdict).setAttribute("aria-pressed", String(now.verdict === verdict));
    byId("done").setAttribute("aria-pressed", String(now.done));
    byId("by").textContent = now.reviewer ? `reviewed by ${now.reviewer}` : "";
    if (document.activeElement !== byId("note")) byId("note").value = now.note;
    byId("undo").disabled = !edits.past.length;
    byId("redo").disabled = !edits.future.length;
    byId("reset").disabled = !now.subtasks;
    const file = edits.file();
    byId("download").hidden = keeper.serves || !file;
    list.update(view.episode.index, app.correctionMarks(file));
    showFrame(view.frame);
  }

  function drawSegmentation() {
    timeline.drawSubtasks(shownSegmentation(), view.chosen, agreement);
  }

  /** Boxes and points are drawn at the frame that they belong to, while the clip is paused. */
  function drawPairs() {
    const { form } = questions;
    if (form) player.draw(form.frame_index === view.frame ? [form] : [], form);
    else player.draw(player.playing ? [] : pairsAt(view.frame));
  }

  function showFrame(frame) {
    view.frame = frame;
    const { episode } = view;
    if (!episode) return;
    const current = shownSegmentation();
    const recut = edits.isRecut(current);
    const state = app.stateAt(episode, frame, { segmentation: current, talks: edits.talks, rephrasings: edits.rephrasings, recut });
    timeline.showFrame(frame, state.subtask);
    byId("clock").textContent = `${state.time.toFixed(2)} / ${episode.end_s.toFixed(2)} s  frame ${frame}`;
    byId("now-time").textContent = app.seconds(state.time);
    byId("play").textContent = player.playing ? "Pause" : "Play";
    if (!view.dragging && state.position >= 0) choose(state.position);
    drawState(state);
    drawPairs();
    texts.show(edits, frame, state.position);
    const here = pairsAt(frame);
    questions.show(frame, here, noQuestion(frame));
    byId("questions-count").textContent = here.length ? `at frame ${frame}` : "";
    clearTimeout(view.writing);
    view.writing = setTimeout(() => view.episode === episode && history.replaceState(null, "", address(episode.index, state.time)), WRITE_ADDRESS_MS);
  }

  function noQuestion(frame) {
    const later = edits.pairs.find((pair) => pair.frame_index > frame);
    return later ? `None at this frame; the next at ${app.seconds(view.episode.timestamps[later.frame_index])} (key “.”).` : "None at this frame.";
  }

  function drawState(state) {
    const key = JSON.stringify(state);
    if (key === view.state) return;
    view.state = key;
    const others = state.rephrasings.length;
    const rows = [
      ["task", state.task, others ? `and ${others} ${others === 1 ? "rephrasing" : "rephrasings"}` : "", state.rephrasings.join("\n")],
      ["subtask", state.subtask],
      ["plan", state.plan],
      ["memory", state.memory, state.memory && state.memoryIsOld ? "The next run writes it again." : ""],
      ...(state.interjection ? [["interjection", state.interjection]] : []),
      ...(state.speech ? [["speech", state.speech]] : []),
    ];
    byId("state").replaceChildren(
      ...rows.flatMap(([name, text, extra, more]) => [
        make("dt", { class: name }, name),
        make("dd", { class: `${name}${text ? "" : " none"}`, "data-style": name, tabindex: name === "plan" ? 0 : null }, text || "none",
          extra ? make("div", { class: "quiet", title: more || null }, extra) : null),
      ])
    );
  }

  /** The subtask at the playhead is the one that keys act on. */
  function choose(index) {
    if (index === view.chosen) return;
    view.chosen = index;
    drawSegmentation();
    table.choose(index);
  }

  /** Blur a text field, because replacing it would not fire its change event. */
  function finishTyping() {
    if (document.activeElement?.matches?.("#main input, #main textarea")) document.activeElement.blur();
  }

  // ---- saving ----

  function hear(index, kind, detail) {
    if (kind === "saved") list.update(index, { effect: detail?.effect ?? null });
    if (index !== view.wanted) return;
    const words = { saving: "saving…", saved: "saved", draft: "saved in this browser", unsaved: "not saved: download it", failed: "not saved", conflict: "not saved" };
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
      edits.now = app.toEdits(view.episode, file);
      redraw();
    };
    notice(
      "Someone else also corrected this episode after you opened it. Choose a version; the other one is backed up.",
      make("button", { class: "primary", onclick: settle(true) }, "Keep mine"),
      make("button", { onclick: settle(false) }, "Take the other"),
      make("button", { onclick: () => app.download(edits.file()) }, "Download mine"),
      theirs.file ? make("details", {}, make("summary", {}, "The other version"), make("pre", {}, JSON.stringify(theirs.file, null, 2))) : make("span", {}, "The other version has no corrections.")
    );
  }

  function notice(text, ...more) {
    byId("notice").hidden = !text;
    byId("notice").replaceChildren(...(text ? [make("div", {}, text), ...more] : []));
  }

  // ---- commands of the buttons and keys (controls.js) ----

  function step(frames) {
    player.pause();
    player.seek(view.frame + frames);
  }

  function jump(frames, direction) {
    player.pause();
    const next = direction > 0 ? frames.find((frame) => frame > view.frame) : frames.findLast((frame) => frame < view.frame);
    if (next !== undefined) player.seek(next);
  }

  app.bindControls({
    isOpen: () => Boolean(view.episode),
    list,
    player,
    timeline: timeline.view,
    table,
    texts,
    questions,
    open,
    step,
    edits: () => edits,
    index: () => view.episode?.index,
    chosen: () => view.chosen,
    second: (direction) => step(direction * Math.round(view.episode.fps)),
    firstFrame: () => step(-view.episode.length),
    lastFrame: () => step(view.episode.length),
    jumpToQuestion: (direction) => jump(edits.pairs.map((pair) => pair.frame_index), direction),
    jumpToSubtask: (direction) => jump(edits.segmentation.map((subtask) => subtask.start), direction),
    split: () => edits.changeSegmentation(segmentation.split(edits.segmentation, view.frame)),
    merge: () => edits.changeSegmentation(segmentation.mergeWithNext(edits.segmentation, view.chosen)),
    edgeHere(side) {
      const index = side === "start" ? view.chosen : view.chosen + 1; // of the boundary
      if (index > 0 && index < edits.segmentation.length) edits.changeSegmentation(segmentation.moveBoundary(edits.segmentation, index, view.frame));
    },
    addQuestion() {
      const pair = questions.form ? null : questions.blank(edits.pairs, view.frame);
      if (!pair) return;
      player.pause();
      player.seek(pair.frame_index);
      questions.edit(pair);
      byId("questions").querySelector("input").focus();
    },
    addTalk() {
      player.pause();
      texts.editTalk();
    },
    done() {
      edits.change({ done: !edits.now.done });
    },
    doneAndNext() {
      if (!edits.now.done) edits.change({ done: true });
      const next = list.nextOpen();
      if (next !== null) open(next);
    },
  });

  start().catch((error) => fail(`The page cannot be opened: ${error.message}.`));
})(window.Cuesheet);
