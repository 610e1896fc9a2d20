// Subtasks of an episode as a cover of its frames without gaps, and the ways to edit it.
//
// A cover is a list of {start, end, label, memory}: frames [start, end); `memory` only if a reviewer
// wrote the memory at the start of the subtask ("" means none). Functions return a new cover, or the
// same one if the change is not possible.
"use strict";

(function (app) {
  const copy = (cover) => cover.map((part) => ({ ...part }));

  /** `part` with that memory, or without one if it is undefined or null. */
  const withMemory = ({ memory: _, ...part }, memory) => (memory === undefined || memory === null ? part : { ...part, memory });

  app.cover = {
    /** The cover of rows {start_s, end_s, label, memory}; times are moved to the nearest frame. */
    of(episode, rows) {
      const starts = rows.map((row, i) => (i ? app.frameAt(episode, row.start_s) : 0));
      return rows.map((row, i) => withMemory({ start: starts[i], end: starts[i + 1] ?? episode.length, label: row.label }, row.memory));
    },

    rows(episode, cover) {
      return cover.map((part) =>
        withMemory({ start_s: app.timeOf(episode, part.start), end_s: app.timeOf(episode, part.end), label: part.label }, part.memory)
      );
    },

    same(first, second) {
      return JSON.stringify(first) === JSON.stringify(second);
    },

    /** Whether two covers have the same boundaries and labels. */
    sameSubtasks(first, second) {
      const bare = (cover) => cover.map(({ start, end, label }) => [start, end, label]);
      return app.cover.same(bare(first), bare(second));
    },

    /** First and last frame for the boundary before part `index`: both parts keep one frame. */
    room(cover, index) {
      return [cover[index - 1].start + 1, cover[index].end - 1];
    },

    moveBoundary(cover, index, frame) {
      const [low, high] = app.cover.room(cover, index);
      const place = Math.min(Math.max(frame, low), high);
      const moved = copy(cover);
      moved[index - 1].end = place;
      moved[index].start = place;
      return moved;
    },

    split(cover, frame) {
      const index = cover.findIndex((part) => part.start < frame && frame < part.end);
      if (index < 0) return cover;
      const parts = copy(cover);
      const { end, label } = parts[index];
      parts.splice(index, 1, { ...parts[index], end: frame }, { start: frame, end, label });
      return parts;
    },

    /** Merge part `index` with the next one; the label of the former stays. */
    mergeWithNext(cover, index) {
      if (index < 0 || index + 1 >= cover.length) return cover;
      const parts = copy(cover);
      parts[index].end = parts[index + 1].end;
      parts.splice(index + 1, 1);
      return parts;
    },

    /** Delete part `index`. The previous part takes its frames, or the next one if it is the first. */
    remove(cover, index) {
      if (cover.length < 2) return cover;
      const parts = copy(cover);
      if (index > 0) parts[index - 1].end = parts[index].end;
      else parts[1] = withMemory({ ...parts[1], start: parts[0].start });
      parts.splice(index, 1);
      return parts;
    },

    rename(cover, index, label) {
      const text = label.replace(/\s+/g, " ").trim().slice(0, 120);
      if (!text) return cover;
      const parts = copy(cover);
      parts[index].label = text;
      return parts;
    },

    /** Set the memory at the start of part `index`; undefined: the model's. */
    setMemory(cover, index, memory) {
      const parts = copy(cover);
      parts[index] = withMemory(parts[index], memory?.replace(/\s+/g, " ").trim().slice(0, 800));
      return parts;
    },
  };
})(window.Cuesheet);
