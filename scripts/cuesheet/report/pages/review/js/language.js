// What the language rows of an episode say at one of its frames.
"use strict";

(function (app) {
  /** Index of the last of the sorted `times` that is not later than `time`; -1 if all are. */
  app.lastNotAfter = function (times, time) {
    let low = 0;
    let high = times.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (times[middle] <= time) low = middle + 1;
      else high = middle;
    }
    return low - 1;
  };

  /** The frame that is shown at `time` (s): the nearest one. */
  app.frameAt = function (episode, time) {
    const before = Math.max(0, app.lastNotAfter(episode.timestamps, time));
    const after = Math.min(before + 1, episode.length - 1);
    const { timestamps } = episode;
    return timestamps[after] - time < time - timestamps[before] ? after : before;
  };

  const said = (row) => row.tool_calls?.[0]?.function?.arguments?.text ?? "";

  /** What the annotations say, before corrections: interjections and speech by frame. */
  app.annotatedTalks = function (episode) {
    const talks = new Map();
    for (const row of episode.events) {
      if (row.style !== "interjection" && row.style !== null) continue;
      const frame = app.frameAt(episode, row.timestamp);
      const talk = talks.get(frame) ?? { frame, interjection: null, speech: "" };
      if (row.style === null) talk.speech = said(row);
      else talk.interjection = row.content;
      talks.set(frame, talk);
    }
    return [...talks.values()].sort((a, b) => a.frame - b.frame);
  };

  /** Texts of the task_aug rows that hold at `time`: the task itself, then its rephrasings. */
  function taskRows(episode, time) {
    const rows = episode.persistent.filter((row) => row.style === "task_aug" && row.timestamp <= time);
    return rows.filter((row) => row.timestamp === rows.at(-1).timestamp).map((row) => row.content);
  }

  /** The rephrasings of the episode's task; if the task changes on the way, of the first one. */
  app.annotatedRephrasings = (episode) => taskRows(episode, episode.timestamps[0]).slice(1);

  /**
   * Memories at the starts of the subtasks of a segmentation: [{index, frame, time, content, own}]. `own`: a reviewer
   * wrote it. The annotations' memory belongs to a subtask if it is at the subtask's first frame.
   */
  app.memories = function (episode, segmentation) {
    const rows = new Map(episode.persistent.filter((row) => row.style === "memory").map((row) => [row.timestamp, row.content]));
    return segmentation.flatMap((subtask, index) => {
      const time = app.timeOf(episode, subtask.start);
      const own = subtask.memory !== undefined;
      const content = own ? subtask.memory : rows.get(time);
      return content ? [{ index, frame: subtask.start, time, content, own }] : [];
    });
  };

  /**
   * The rows that hold at a frame: persistent rows from their time on, events on their frame alone.
   *
   * `edits` has the corrected segmentation, talks and rephrasings. If the segmentation differs from the
   * annotations' (`recut`), subtask and plan are those that the next run will write, and
   * `memoryIsOld` says that the next run will write another memory.
   */
  app.stateAt = function (episode, frame, { segmentation, talks, rephrasings, recut }) {
    const time = episode.timestamps[frame];
    const latest = (style) => episode.persistent.findLast((row) => row.style === style && row.timestamp <= time)?.content;
    const position = segmentation.findIndex((subtask) => subtask.start <= frame && frame < subtask.end);
    const plan = recut ? segmentation.slice(position).map((subtask, i) => `${i + 1}. ${subtask.label}`).join("\n") : latest("plan");
    const known = app.memories(episode, segmentation).findLast((memory) => memory.frame <= frame);
    const current = known?.index === position;
    const isFirstTask = !episode.persistent.some((row) => row.style === "task_aug" && row.timestamp > episode.timestamps[0] && row.timestamp <= time);
    const [task = episode.task, ...others] = taskRows(episode, time);
    const talk = talks.find((one) => one.frame === frame);
    return {
      position,
      time,
      task,
      rephrasings: isFirstTask ? rephrasings : others,
      subtask: recut ? segmentation[position]?.label : latest("subtask"),
      plan,
      memory: recut && !current ? latest("memory") ?? known?.content : known?.content,
      memoryIsOld: recut && !(current && known.own),
      interjection: talk?.interjection,
      speech: talk?.speech,
    };
  };
})(window.Cuesheet);
