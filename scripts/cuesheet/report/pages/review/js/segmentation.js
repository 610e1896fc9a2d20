// Subtasks of an episode as a segmentation of its frames without gaps, and the ways to edit it.
//
// A segmentation is a list of {start, end, label, memory}: frames [start, end); `memory` only if a reviewer
// wrote the memory at the start of the subtask ("" means none). Functions return a new segmentation, or the
// same one if the change is not possible.
"use strict";

(function (app) {
  const copy = (segmentation) => segmentation.map((subtask) => ({ ...subtask }));

  /** `subtask` with that memory, or without one if it is undefined or null. */
  const withMemory = ({ memory: _, ...subtask }, memory) => (memory === undefined || memory === null ? subtask : { ...subtask, memory });

  app.segmentation = {
    /** The segmentation of rows {start_s, end_s, label, memory}; times are moved to the nearest frame. */
    of(episode, rows) {
      const starts = rows.map((row, i) => (i ? app.frameAt(episode, row.start_s) : 0));
      return rows.map((row, i) => withMemory({ start: starts[i], end: starts[i + 1] ?? episode.length, label: row.label }, row.memory));
    },

    rows(episode, segmentation) {
      return segmentation.map((subtask) =>
        withMemory({ start_s: app.timeOf(episode, subtask.start), end_s: app.timeOf(episode, subtask.end), label: subtask.label }, subtask.memory)
      );
    },

    same(first, second) {
      return JSON.stringify(first) === JSON.stringify(second);
    },

    /** Whether two segmentations have the same boundaries and labels. */
    sameSubtasks(first, second) {
      const bare = (segmentation) => segmentation.map(({ start, end, label }) => [start, end, label]);
      return app.segmentation.same(bare(first), bare(second));
    },

    /** First and last frame for the boundary before subtask `index`: both subtasks keep one frame. */
    room(segmentation, index) {
      return [segmentation[index - 1].start + 1, segmentation[index].end - 1];
    },

    moveBoundary(segmentation, index, frame) {
      const [low, high] = app.segmentation.room(segmentation, index);
      const place = Math.min(Math.max(frame, low), high);
      const moved = copy(segmentation);
      moved[index - 1].end = place;
      moved[index].start = place;
      return moved;
    },

    split(segmentation, frame) {
      const index = segmentation.findIndex((subtask) => subtask.start < frame && frame < subtask.end);
      if (index < 0) return segmentation;
      const subtasks = copy(segmentation);
      const { end, label } = subtasks[index];
      subtasks.splice(index, 1, { ...subtasks[index], end: frame }, { start: frame, end, label });
      return subtasks;
    },

    /** Merge subtask `index` with the next one; the label of the former stays. */
    mergeWithNext(segmentation, index) {
      if (index < 0 || index + 1 >= segmentation.length) return segmentation;
      const subtasks = copy(segmentation);
      subtasks[index].end = subtasks[index + 1].end;
      subtasks.splice(index + 1, 1);
      return subtasks;
    },

    /** Delete subtask `index`. The previous subtask takes its frames, or the next one if it is the first. */
    remove(segmentation, index) {
      if (segmentation.length < 2) return segmentation;
      const subtasks = copy(segmentation);
      if (index > 0) subtasks[index - 1].end = subtasks[index].end;
      else subtasks[1] = withMemory({ ...subtasks[1], start: subtasks[0].start });
      subtasks.splice(index, 1);
      return subtasks;
    },

    rename(segmentation, index, label) {
      const text = label.replace(/\s+/g, " ").trim().slice(0, 120);
      if (!text) return segmentation;
      const subtasks = copy(segmentation);
      subtasks[index].label = text;
      return subtasks;
    },

    /** Set the memory at the start of subtask `index`; undefined: the model's. */
    setMemory(segmentation, index, memory) {
      const subtasks = copy(segmentation);
      subtasks[index] = withMemory(subtasks[index], memory?.replace(/\s+/g, " ").trim().slice(0, 800));
      return subtasks;
    },
  };
})(window.Cuesheet);
