// SPDX-License-Identifier: Apache-2.0
// What stands beside the picture: state, instances, seeds. Texts of others go in as text, never as HTML.

const STATES = {
  SEEDED: "tracking",
  TRACKING: "tracking",
  OCCLUDED: "hidden",
  LOST: "lost",
  WAITING: "coming",
};

export const byId = (id) => document.getElementById(id);

export function make(tag, className = "", text = "") {
  const element = document.createElement(tag);
  element.className = className;
  element.textContent = text;
  return element;
}

export const css = ([red, green, blue]) => `rgb(${red} ${green} ${blue})`;

// A button that does it at the second click: nothing here can be undone.
export function twice(button, question, run) {
  const text = button.textContent;
  let timer = 0;
  const calm = () => {
    clearTimeout(timer);
    button.classList.remove("sure");
    button.textContent = text;
  };
  button.addEventListener("click", () => {
    if (button.classList.contains("sure")) {
      calm();
      run();
      return;
    }
    button.classList.add("sure");
    button.textContent = question;
    timer = setTimeout(calm, 3000);
  });
}

export function showStatus(state) {
  const { status } = state;
  byId("dot").className = state.trouble ? "dot bad" : "dot good";
  const parts = [state.tracker];
  if (status) parts.push(status.device, `session ${status.session}`);
  if (status?.step_ms) parts.push(`${Math.round(status.step_ms)} ms a step`);
  byId("tracker").textContent = parts.join(" · ");
  byId("camera").textContent = state.image_topic
    ? `${state.image_topic}${state.fps ? ` · ${state.fps.toFixed(state.fps < 9.5 ? 1 : 0)} Hz` : ""}`
    : "";
}

// Rows are kept by id, so that a button is the same from click to click.
export class Instances {
  constructor(correct, remove) {
    Object.assign(this, { correct, remove });
    this.rows = new Map();
  }

  show(instances, target) {
    byId("nobody").hidden = instances.length > 0;
    byId("reset").disabled = !instances.length;
    const live = new Set(instances.map((instance) => instance.id));
    for (const [id, row] of this.rows) {
      if (live.has(id)) continue;
      row.element.remove();
      this.rows.delete(id);
    }
    for (const instance of instances) {
      if (!this.rows.has(instance.id)) this.rows.set(instance.id, this.row(instance));
      const row = this.rows.get(instance.id);
      byId("instances").append(row.element);
      row.name.textContent = `#${instance.id} ${instance.name}`.trim();
      row.state.textContent = STATES[instance.state] ?? instance.state;
      row.state.className = `state ${STATES[instance.state] ?? ""}`;
      const seen = instance.score !== null && instance.score > 0;
      row.score.textContent = seen ? instance.score.toFixed(2) : "";
      row.element.classList.toggle("chosen", instance.id === target);
    }
  }

  row({ id, colour }) {
    const element = make("li", "instance");
    element.dataset.id = id;
    const swatch = make("span", "swatch");
    swatch.style.background = css(colour);
    const text = make("div", "text");
    const name = make("div", "name");
    const detail = make("div", "detail");
    const state = make("span", "state");
    const score = make("span", "score");
    score.title = "Score: mean probability inside the mask";
    detail.append(state, score);
    text.append(name, detail);
    const correct = make("button", "small", "Correct");
    correct.title = "Draw its mask anew, or mend the one it has";
    correct.addEventListener("click", () => this.correct(id));
    const remove = make("button", "small danger", "Remove");
    twice(remove, "Sure?", () => this.remove(id));
    element.append(swatch, text, correct, remove);
    return { element, name, state, score };
  }
}

export function showTargets(instances, target) {
  const select = byId("target");
  const wanted = [["0", "A new instance"], ...instances.map(({ id, name }) => [`${id}`, `Correct #${id} ${name}`.trim()])];
  const same = wanted.length === select.length && wanted.every(([, text], i) => select.options[i].text === text);
  if (!same) select.replaceChildren(...wanted.map(([value, text]) => new Option(text, value)));
  select.value = `${target}`;
}

export function describe(seed) {
  const who = seed.ids.map((id) => `#${id}`).join(" ") || "seed";
  if (seed.status === "pending") return `${who} waits: ${seed.reason}`;
  if (seed.status === "rejected") return `${who} refused: ${seed.reason}`;
  const late = seed.frames_used ? `, ${seed.frames_used} images caught up in ${seed.duration.toFixed(1)}\u00a0s` : "";
  return `${who} applied${late}`;
}

export function showSeeds(seeds) {
  const lines = seeds
    .slice(-6)
    .reverse()
    .map((seed) => {
      const line = make("li", seed.status, describe(seed));
      if (!seed.ours) line.append(make("span", "detail", " (another client)"));
      return line;
    });
  byId("seeds").replaceChildren(...lines);
  byId("noseeds").hidden = lines.length > 0;
}

let timer = 0;
export function toast(text, kind = "") {
  const place = byId("toast");
  place.textContent = text;
  place.className = `toast shown ${kind}`;
  clearTimeout(timer);
  timer = setTimeout(() => (place.className = "toast"), kind === "bad" ? 9000 : 4000);
}
