// Corrections of one episode: their format, and where they are saved.
//
// Every change is written to the browser's storage at once (a draft), then to the server of
// `cuesheet review` if there is one. A draft is deleted only when the server has saved it. A page that
// was opened as a file has no server: the draft stays, and the correction file can be downloaded.
"use strict";

(function (app) {
  const SAVE_AFTER_MS = 600;
  const RETRY_AFTER_MS = 4000;

  const pairKey = (entry) => `${entry.frame_index}|${entry.camera}`;
  app.pairKey = pairKey;

  /** The correction file of edits, or null if nothing is corrected. */
  app.toCorrection = function (dataset, episode, edits) {
    const vqa = Object.values(edits.vqa);
    const file = {};
    if (edits.subtasks) file.subtasks = app.segmentation.rows(episode, edits.subtasks);
    if (edits.rephrasings) file.rephrasings = edits.rephrasings;
    if (edits.talks) file.interjections = edits.talks.map(({ frame, interjection, speech }) => ({ time_s: episode.timestamps[frame], interjection, speech }));
    if (vqa.length) file.vqa = vqa.sort((a, b) => a.frame_index - b.frame_index || (a.camera < b.camera ? -1 : 1));
    if (edits.verdict) file.verdict = edits.verdict;
    if (edits.note) file.note = edits.note;
    if (edits.done) file.done = true;
    if (!Object.keys(file).length) return null;
    if (edits.reviewer) file.reviewer = edits.reviewer;
    return { format: 1, dataset, episode_index: episode.index, length: episode.length, ...file };
  };

  app.toEdits = function (episode, file) {
    const fits = file && (file.length === undefined || file.length === episode.length);
    const { subtasks, rephrasings, interjections, vqa, verdict, note, done, reviewer } = fits ? file : {};
    return {
      subtasks: subtasks ? app.segmentation.of(episode, subtasks) : null,
      rephrasings: rephrasings ?? null,
      talks: interjections?.map((one) => ({ frame: app.frameAt(episode, one.time_s), interjection: one.interjection ?? null, speech: one.speech })) ?? null,
      vqa: Object.fromEntries((vqa ?? []).map((entry) => [pairKey(entry), entry])),
      verdict: verdict ?? null,
      note: note ?? "",
      done: Boolean(done),
      reviewer: reviewer ?? "",
    };
  };

  /** What the list shows of a correction file: `corrected` says that it changes annotations. */
  app.correctionMarks = (file) => ({
    verdict: file?.verdict ?? null,
    done: Boolean(file?.done),
    corrected: Boolean(file && (file.subtasks || file.rephrasings || file.interjections || file.vqa)),
  });

  /** The pairs of an episode as corrected; `corrected: true` marks those that a reviewer wrote. */
  app.correctedPairs = function (episode, edits) {
    const found = episode.pairs.filter((pair) => {
      const entry = edits.vqa[pairKey(pair)];
      return !entry || (entry.delete && entry.type !== pair.type);
    });
    for (const entry of Object.values(edits.vqa)) {
      if (!entry.delete) found.push({ ...entry, corrected: true });
    }
    return found.sort((a, b) => a.frame_index - b.frame_index || (a.camera < b.camera ? -1 : 1));
  };

  const storage = {
    get(key) {
      try {
        return JSON.parse(localStorage.getItem(key));
      } catch {
        return null;
      }
    },
    set(key, value) {
      try {
        localStorage.setItem(key, JSON.stringify(value));
        return true;
      } catch {
        return false; // full or disabled: only the server, or a download, saves the correction
      }
    },
    remove(key) {
      try {
        localStorage.removeItem(key);
      } catch {
        /* as above */
      }
    },
  };

  /** [episode, correction file] of the drafts in this browser. */
  function drafts(dataset) {
    const prefix = `cuesheet/${dataset}/`;
    try {
      return Object.keys(localStorage)
        .filter((key) => key.startsWith(prefix) && /^\d+$/.test(key.slice(prefix.length)))
        .map((key) => [Number(key.slice(prefix.length)), storage.get(key)?.file ?? null]);
    } catch {
      return [];
    }
  }

  /** Saves the corrections of all episodes. `report(episodeIndex, kind, detail)` tells the outcome. */
  app.Keeper = class {
    constructor(dataset, report) {
      this.dataset = dataset;
      this.report = report;
      this.serves = false;
      this.work = new Map(); // episode -> {etag, file, timer, saving, again, blocked}
      window.addEventListener("beforeunload", (event) => {
        if (this.serves && [...this.work.values()].some((one) => one.timer || one.saving)) event.preventDefault();
      });
    }

    key(index) {
      return `cuesheet/${this.dataset}/${app.episodeName(index)}`;
    }

    async connect() {
      if (!location.protocol.startsWith("http")) return false;
      try {
        const reply = await fetch("/api/session", { cache: "no-store" });
        const session = reply.ok ? await reply.json() : {};
        this.serves = session.dataset === this.dataset;
        if (this.serves) this.session = session;
      } catch {
        this.serves = false;
      }
      return this.serves;
    }

    /** Episode -> what the list shows of its corrections: those that the server has, and drafts. */
    async marks() {
      const found = new Map();
      if (this.serves) {
        const reply = await fetch("/api/corrections", { cache: "no-store" });
        if (reply.ok) for (const one of await reply.json()) found.set(one.episode_index, one);
      }
      for (const [index, file] of drafts(this.dataset)) found.set(index, { ...found.get(index), ...app.correctionMarks(file) });
      return found;
    }

    /** The corrections of an episode: the file's, or those of a draft that is not saved yet. */
    async open(episode) {
      const { index } = episode;
      const draft = storage.get(this.key(index));
      const saved = this.serves ? await this.fetch(index) : { etag: "built", file: episode.correction ?? null };
      const pending = this.work.get(index);
      if (pending && (pending.timer || pending.saving || pending.blocked)) return pending.file;
      this.work.set(index, { etag: saved.etag, file: saved.file });
      if (!draft) return saved.file;
      if (JSON.stringify(draft.file) === JSON.stringify(saved.file)) {
        storage.remove(this.key(index));
        return saved.file;
      }
      if (this.serves && draft.etag !== saved.etag && draft.etag !== "built") {
        this.work.get(index).file = draft.file;
        this.conflict(index, saved);
        return draft.file;
      }
      this.keep(episode.index, draft.file);
      return draft.file;
    }

    async fetch(index) {
      const reply = await fetch(`/api/corrections/${app.episodeName(index)}`, { cache: "no-store" });
      if (!reply.ok) throw new Error((await reply.text()) || `the server returned HTTP ${reply.status}`);
      return reply.json();
    }

    /** Save `file` (null: the episode has no corrections any more). */
    keep(index, file) {
      const work = this.work.get(index) ?? { etag: "none", file: null };
      this.work.set(index, work);
      work.file = file;
      const drafted = storage.set(this.key(index), { etag: work.etag, file });
      if (!this.serves) {
        this.report(index, drafted ? "draft" : "unsaved");
        return;
      }
      if (work.blocked) return;
      this.report(index, "saving");
      clearTimeout(work.timer);
      work.timer = setTimeout(() => this.save(index), SAVE_AFTER_MS);
    }

    async save(index, { force = false } = {}) {
      const work = this.work.get(index);
      clearTimeout(work.timer);
      work.timer = null;
      if (work.saving) {
        work.again = true;
        return;
      }
      const sent = work.file;
      work.saving = true;
      try {
        const reply = await fetch(`/api/corrections/${app.episodeName(index)}`, {
          method: "PUT",
          headers: { "Content-Type": "application/json", "X-Cuesheet": "review", "If-Match": force ? "*" : work.etag },
          body: JSON.stringify(sent),
          keepalive: JSON.stringify(sent).length < 60000,
        });
        if (reply.status === 409) {
          this.conflict(index, await reply.json());
        } else if (!reply.ok) {
          this.failed(index, (await reply.text()) || `the server returned HTTP ${reply.status}`, reply.status >= 500);
        } else {
          const saved = await reply.json();
          work.etag = saved.etag;
          if (work.file === sent) {
            storage.remove(this.key(index));
            this.report(index, "saved", saved);
          } else {
            storage.set(this.key(index), { etag: work.etag, file: work.file });
            work.again = true;
          }
        }
      } catch {
        this.failed(index, "the server of `cuesheet review` does not respond", true);
      } finally {
        work.saving = false;
        if (work.again && !work.blocked) {
          work.again = false;
          work.timer ??= setTimeout(() => this.save(index), SAVE_AFTER_MS);
        }
      }
    }

    failed(index, message, retry) {
      this.report(index, "failed", `${message}; your changes are saved in this browser`);
      if (retry) this.work.get(index).timer = setTimeout(() => this.save(index), RETRY_AFTER_MS);
    }

    conflict(index, theirs) {
      const work = this.work.get(index);
      work.blocked = true;
      work.theirs = theirs;
      this.report(index, "conflict", theirs);
    }

    /** After a conflict: keep mine (the server backs up the other version), or take theirs. */
    async resolve(index, mine) {
      const work = this.work.get(index);
      work.blocked = false;
      if (mine) {
        await this.save(index, { force: true });
        return work.file;
      }
      storage.set(`${this.key(index)}/backup`, { file: work.file });
      storage.remove(this.key(index));
      work.etag = work.theirs.etag;
      work.file = work.theirs.file;
      this.report(index, "saved");
      return work.file;
    }

    /** Save the question in the form (null: none), so that closing the tab does not lose it. */
    keepForm(index, pair) {
      if (pair) storage.set(`${this.key(index)}/question`, pair);
      else storage.remove(`${this.key(index)}/question`);
    }

    form(index) {
      return storage.get(`${this.key(index)}/question`);
    }
  };

  app.storage = storage;

  /** Offer `file` for download under the name that the workflow expects. */
  app.download = function (file) {
    const blob = new Blob([`${JSON.stringify(file, null, 2)}\n`], { type: "application/json" });
    const link = app.make("a", { href: URL.createObjectURL(blob), download: `${app.episodeName(file.episode_index)}.json` });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
})(window.Cuesheet);
