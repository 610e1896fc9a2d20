// The lane of the timeline that shows gripper openings, arm speeds and gripper strokes.
"use strict";

(function (app) {
  const { make } = app;
  const SVG = "http://www.w3.org/2000/svg";

  /** Gripper opening and arm speed as curves, gripper strokes as marks. */
  app.signalsLane = function (episode) {
    const { times, grippers, arms, strokes } = episode.signals;
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", "0 0 1000 100");
    svg.setAttribute("preserveAspectRatio", "none");
    svg.setAttribute("aria-hidden", "true");
    const curve = (values, top, kind) => {
      const line = document.createElementNS(SVG, "polyline");
      const y = (value) => 96 - (92 * Math.min(Math.max(value, 0), top)) / top;
      line.setAttribute("points", times.map((time, i) => `${((1000 * time) / episode.end_s).toFixed(1)},${y(values[i]).toFixed(1)}`).join(" "));
      line.setAttribute("class", kind);
      svg.append(line);
    };
    for (const arm of arms) curve(arm.speed, Math.max(1, ...arm.speed), "speed");
    for (const gripper of grippers) curve(gripper.opening, 1, "opening");
    const marks = strokes.map((stroke) => {
      const [start, end] = [app.timeOf(episode, stroke.start_frame), app.timeOf(episode, stroke.end_frame)];
      return make("div", {
        class: `stroke ${stroke.kind}`,
        style: { left: app.left(episode, start), width: app.left(episode, end - start) },
        title: `${stroke.gripper}: ${stroke.kind}, ${app.seconds(start)} to ${app.seconds(end)}`,
      });
    });
    return make("div", { class: "track signals", role: "img", "aria-label": `Gripper opening and arm speed; ${strokes.length} gripper strokes` }, svg, ...marks);
  };
})(window.Cuesheet);
