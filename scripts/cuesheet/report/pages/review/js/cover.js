// Subtasks of an episode as a cover of its frames without gaps, and how a person changes it.
//
// A cover is a list of {start, end, label}: frames [start, end). Functions return a new cover, or
// the same one where the change is not possible.
"use strict";

(function (app) {
  const copy = (cover) => cover.map((part) => ({ ...part }));

  app.cover = {
    /** The cover of rows {start_s, end_s, label}, their times taken to the nearest frame. */
    of(episode, rows) {
      const starts = rows.map((row, i) => (i ? app.frameAt(episode, row.start_s) : 0));
      return rows.map((row, i) => ({ start: starts[i], end: starts[i + 1] ?? episode.length, label: row.label }));
    },

    rows(episode, cover) {
      const time = (frame) => (frame < episode.length ? episode.timestamps[frame] : episode.end_s);
      return cover.map((part) => ({ start_s: time(part.start), end_s: time(part.end), label: part.label }));
    },

    same(first, second) {
      return JSON.stringify(first) === JSON.stringify(second);
    },

    /** Where the boundary before part `index` may lie: both parts keep one frame. */
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
      parts.splice(index, 1, { ...parts[index], end: frame }, { ...parts[index], start: frame });
      return parts;
    },

    /** Part `index` and the next one become one with the label of the former. */
    mergeWithNext(cover, index) {
      if (index < 0 || index + 1 >= cover.length) return cover;
      const parts = copy(cover);
      parts[index].end = parts[index + 1].end;
      parts.splice(index + 1, 1);
      return parts;
    },

    /** Part `index` goes; the one before it (of the first one: behind it) takes its frames. */
    remove(cover, index) {
      if (cover.length < 2) return cover;
      const parts = copy(cover);
      if (index > 0) parts[index - 1].end = parts[index].end;
      else parts[1].start = parts[0].start;
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
  };
})(window.Cuesheet);
