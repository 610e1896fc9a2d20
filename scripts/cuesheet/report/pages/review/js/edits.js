// The corrections of the episode that is open, with undo and redo.
"use strict";

(function (app) {
  const { segmentation } = app;

  app.Edits = class {
    /** `changed()` is called after every change; `reviewer()` returns the reviewer's name or "". */
    constructor(dataset, keeper, changed, reviewer) {
      this.dataset = dataset;
      this.keeper = keeper;
      this.changed = changed;
      this.reviewer = reviewer;
      this.episode = null;
    }

    /** Start with the corrections in `file` (null: none). */
    open(episode, file) {
      this.episode = episode;
      this.annotated = {
        subtasks: segmentation.of(episode, episode.subtasks),
        talks: app.annotatedTalks(episode),
        rephrasings: app.annotatedRephrasings(episode),
      };
      this.now = app.toEdits(episode, file);
      this.past = [];
      this.future = [];
    }

    get segmentation() {
      return this.now.subtasks ?? this.annotated.subtasks;
    }

    get talks() {
      return this.now.talks ?? this.annotated.talks;
    }

    get rephrasings() {
      return this.now.rephrasings ?? this.annotated.rephrasings;
    }

    get pairs() {
      return app.correctedPairs(this.episode, this.now);
    }

    /** Whether `subtasks` have other boundaries or labels than the annotations. */
    isRecut(subtasks = this.segmentation) {
      return !segmentation.sameSubtasks(subtasks, this.annotated.subtasks);
    }

    /** Agreement of the samples on an annotated subtask; null if there is none or it was changed. */
    agreement(subtask) {
      return this.episode.subtasks[this.annotated.subtasks.findIndex((one) => segmentation.same(one, subtask))]?.agreement ?? null;
    }

    file(changes = {}) {
      return app.toCorrection(this.dataset, this.episode, { ...this.now, ...changes });
    }

    change(changes) {
      this.past.push(this.now);
      this.future = [];
      const reviewer = this.reviewer() || this.now.reviewer;
      this.apply({ ...this.now, ...changes, reviewer });
    }

    /** Change the subtasks, unless `changed` equals them. */
    changeSegmentation(changed) {
      if (!segmentation.same(changed, this.segmentation)) this.change({ subtasks: changed });
      else this.changed();
    }

    /** Save what is being typed as a draft, before it becomes a change. */
    typing(changes) {
      this.keeper.keep(this.episode.index, this.file(changes));
    }

    /** Drop what was being typed. */
    cancel() {
      this.apply(this.now);
    }

    apply(edits) {
      const back = edits.subtasks && segmentation.same(edits.subtasks, this.annotated.subtasks);
      this.now = back && !this.episode.correction?.subtasks ? { ...edits, subtasks: null } : edits;
      this.changed();
      this.keeper.keep(this.episode.index, this.file());
    }

    undo() {
      this.step(this.past, this.future);
    }

    redo() {
      this.step(this.future, this.past);
    }

    step(from, to) {
      const edits = from.pop();
      if (!edits) return;
      to.push(this.now);
      this.apply(edits);
    }

    setQuestion({ frame_index, camera, type, question, answer }) {
      const entry = { frame_index, camera, type, question: question.trim(), answer };
      this.change({ vqa: { ...this.now.vqa, [app.pairKey(entry)]: entry } });
    }

    removeQuestion({ frame_index, camera, type, corrected }) {
      const key = app.pairKey({ frame_index, camera });
      const original = this.episode.pairs.find((pair) => app.pairKey(pair) === key);
      const vqa = { ...this.now.vqa };
      if (original || !corrected) vqa[key] = { frame_index, camera, type: original?.type ?? type, delete: true };
      else delete vqa[key];
      this.change({ vqa });
    }

    restoreQuestion(pair) {
      const vqa = { ...this.now.vqa };
      delete vqa[app.pairKey(pair)];
      this.change({ vqa });
    }

    /** Add or replace the interjection and speech of a frame; null deletes them. */
    setTalk(frame, talk) {
      const others = this.talks.filter((one) => one.frame !== frame);
      this.change({ talks: [...others, ...(talk ? [{ frame, ...talk }] : [])].sort((a, b) => a.frame - b.frame) });
    }

    judge(verdict) {
      this.change({ verdict: this.now.verdict === verdict ? null : verdict });
    }
  };
})(window.Cuesheet);
