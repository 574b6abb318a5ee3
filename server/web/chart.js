// A small chart of how a job goes on.
import { el, show, svg } from "./dom.js";
import { rate, span } from "./format.js";

const W = 640, H = 150, LEFT = 4, RIGHT = 4, TOP = 10, BOTTOM = 18;
const MOST = 400; // points kept of a job

const kept = new Map(); // of jobs that were watched in this tab, by id

// history is what was seen of a job since it was first looked at in this tab.
export function history(id) {
  if (!kept.has(id)) kept.set(id, []);
  const points = kept.get(id);
  return {
    points,
    add(job) {
      const at = Date.now();
      const point = { at, repos: job.repos_per_second, records: job.records_per_second };
      if (points.length > 0 && at - points.at(-1).at < 900) points[points.length - 1] = { ...point, at: points.at(-1).at };
      else points.push(point);
      // Half of the points tell the same of twice the time.
      if (points.length > MOST) points.splice(0, points.length, ...points.filter((_, i) => i % 2 === 0));
    },
  };
}

// chart draws two rates over time, each on a scale of its own.
export function chart() {
  const figure = el("figure", { class: "chart" });
  return {
    node: figure,
    draw(points) {
      if (points.length < 2) {
        show(figure, el("p", { class: "hint" }, "A chart follows as soon as there is something to show."));
        return;
      }
      const from = points[0].at, to = points.at(-1).at;
      const x = (at) => LEFT + ((W - LEFT - RIGHT) * (at - from)) / Math.max(to - from, 1);
      const line = (name, most) => {
        const y = (v) => H - BOTTOM - ((H - TOP - BOTTOM) * v) / Math.max(most, 1);
        return points.map((p, i) => (i ? "L" : "M") + x(p.at).toFixed(1) + " " + y(p[name]).toFixed(1)).join("");
      };
      const most = (name) => Math.max(...points.map((p) => p[name]));
      const repos = most("repos"), records = most("records");
      const area = line("records", records) + `L${x(to).toFixed(1)} ${H - BOTTOM}L${x(from).toFixed(1)} ${H - BOTTOM}Z`;
      const now = points.at(-1);
      show(figure,
        svg("svg", { viewBox: `0 0 ${W} ${H}`, preserveAspectRatio: "none", role: "img",
          "aria-label": `Over ${span((to - from) / 1000)}: at most ${rate(records)} records and ${rate(repos)} repos a second, now ${rate(now.records)} and ${rate(now.repos)}` },
          svg("line", { class: "base", x1: LEFT, x2: W - RIGHT, y1: H - BOTTOM, y2: H - BOTTOM }),
          svg("path", { class: "area", d: area }),
          svg("path", { class: "records", d: line("records", records) }),
          svg("path", { class: "repos", d: line("repos", repos) })),
        el("figcaption", {},
          el("span", { class: "key records" }, "records a second, up to " + rate(records)),
          el("span", { class: "key repos" }, "repos a second, up to " + rate(repos)),
          el("span", { class: "hint" }, "over " + span((to - from) / 1000))));
      figure.dataset.points = points.length;
    },
  };
}
