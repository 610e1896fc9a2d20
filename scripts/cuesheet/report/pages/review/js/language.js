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

  /**
   * Persistent rows hold from their time on, events on their frame alone.
   *
   * `cover` is the subtasks as corrected; where they differ from the rows, subtask and plan are
   * what the next run makes of them, and `memoryIsOld` says that the memory will be another.
   */
  app.stateAt = function (episode, frame, cover, corrected) {
    const time = episode.timestamps[frame];
    const latest = (style) => episode.persistent.findLast((row) => row.style === style && row.timestamp <= time);
    const onFrame = (test) => episode.events.filter((row) => row.timestamp === time && test(row));
    const position = cover.findIndex((part) => part.start <= frame && frame < part.end);
    const tasks = episode.persistent.filter((row) => row.style === "task_aug" && row.timestamp <= time);
    const plan = corrected
      ? cover.slice(position).map((part, i) => `${i + 1}. ${part.label}`).join("\n")
      : latest("plan")?.content;
    return {
      position,
      time,
      tasks: tasks.map((row) => row.content),
      subtask: corrected ? cover[position]?.label : latest("subtask")?.content,
      plan: latest("plan") || corrected ? plan : undefined,
      memory: latest("memory")?.content,
      memoryIsOld: corrected,
      interjections: onFrame((row) => row.style === "interjection").map((row) => row.content),
      speech: onFrame((row) => row.style === null).map(said),
    };
  };

  app.speechText = said;
})(window.Cuesheet);
