// SPDX-License-Identifier: Apache-2.0
// The page: live until something is drawn, then the shown image stands still until the seed is sent.

import { Lost, getFrame, getJson, post } from "./api.js";
import { Drawing } from "./drawing.js";
import { Instances, byId, describe, showSeeds, showStatus, showTargets, toast, twice } from "./panels.js";
import { area, fromRuns, toRuns } from "./raster.js";
import { Hover } from "./hover.js";
import { FOUND, HINTS, Tools } from "./tools.js";
import { View } from "./view.js";

const NEW_COLOUR = [56, 225, 255];
const HOVER_COLOUR = [255, 255, 255];
const STATE_MS = 500;
const WAITING_MS = 150; // while a seed waits for its result
const RETRY_MS = 1000;
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

const drawing = new Drawing();
const view = new View(byId("canvas"));
const stroke = (mask) => view.setMask(mask, colour());
const hover = new Hover({ picture: hovered, show: showHovered });
const rest = (place) => hover.at(place);
const tools = new Tools(view, drawing, { freeze, changed, ask, stroke, rest, corrects: () => target > 0 });
const instances = new Instances(correct, (id) => attempt(() => post("/api/remove", { id })));

let state = { instances: [], seeds: [], trouble: "", status: null };
let shown = null; // stamp of the image on the canvas, text
let frozen = null; // {stamp, ready}: ready is a promise, of whether the server keeps the image
let target = 0;
let sent = null; // token of the seed whose result is awaited
let isSending = false;
let trouble = "";

// --- the picture ---

async function live() {
  for (;;) {
    if (frozen || document.hidden) {
      await sleep(100);
      continue;
    }
    try {
      const masks = byId("masks").checked ? 1 : 0;
      const frame = await getFrame({ after: shown ?? 0, masks, width: Math.min(1600, view.canvas.width) });
      if (frame && !frozen) show(frame);
      else frame?.bitmap.close();
    } catch (error) {
      await sleep(error instanceof Lost ? RETRY_MS : 300);
    }
  }
}

function show(frame) {
  shown = frame.stamp;
  view.show(frame.bitmap, frame.width, frame.height);
  byId("empty").hidden = true;
}

// The image that is seen stands still, and the server keeps it.
function freeze() {
  if (isSending || sent) return false;
  if (frozen) return true;
  if (!shown) return false;
  frozen = { stamp: shown };
  frozen.ready = keep(frozen);
  refresh();
  return true;
}

async function keep(image) {
  try {
    await post("/api/freeze", { stamp: image.stamp });
    const masks = byId("masks").checked ? 1 : 0;
    const frame = await getFrame({ stamp: image.stamp, masks, without: target }); // it is what is drawn
    if (frozen === image) show(frame);
    else frame.bitmap.close();
    return true;
  } catch (error) {
    if (frozen === image) {
      toast(error.message, "bad");
      thaw();
    }
    return false;
  }
}

function thaw() {
  frozen = null;
  sent = null;
  drawing.history = [drawing.history[0]];
  drawing.at = 0;
  drawing.forget();
  setTarget(0);
  byId("name").value = "";
  changed();
}

// The drawing as it is, on the newest image: where the tracker does not hold what came after the old one any more.
async function newest() {
  if (!frozen || isSending || sent) return;
  try {
    const frame = await getFrame({ after: 0, masks: 0 });
    if (!frame || !frozen) return;
    const isSame = frame.width === view.width && frame.height === view.height;
    frozen = { stamp: frame.stamp };
    show(frame);
    frozen.ready = keep(frozen);
    if (!isSame) thaw();
    const { prompt } = drawing.state;
    if (prompt) tools.prompt(prompt); // its colours are others now
    changed();
  } catch (error) {
    toast(error.message, "bad");
  }
}

// --- the drawing ---

async function ask(prompt) {
  prompt.waiting = true;
  const image = frozen;
  try {
    if (!(await image.ready)) return;
    const runsBefore = prompt.mends ? toRuns(drawing.before(view.width, view.height)) : null;
    const asked = { stamp: image.stamp, box: prompt.box, points: prompt.points, runs: runsBefore };
    const { runs, unsure } = await post("/api/prompt", asked);
    prompt.mask = fromRuns(runs, view.width, view.height);
    prompt.error = area(prompt.mask) ? unsure : "Nothing found there: add a point, or draw it with the brush.";
  } catch (error) {
    prompt.error = error.message;
  }
  prompt.waiting = false;
  if (frozen !== image) return;
  drawing.forget();
  changed();
}

// The picture on which a click would mark a new object.
function hovered() {
  if (!shown || shown === "0" || tools.name !== "point" || tools.takesAway || target) return null;
  if (!drawing.isEmpty || isSending || sent) return null;
  return { stamp: shown, width: view.width, height: view.height, still: Boolean(frozen) };
}

function showHovered(mask) {
  view.setMask(mask, HOVER_COLOUR);
  document.body.dataset.hover = mask ? "shown" : "";
}

function changed() {
  hover.hide();
  const mask = frozen && !drawing.isEmpty ? drawing.mask(view.width, view.height) : null;
  view.setMask(mask, colour());
  byId("area").textContent = mask ? `${area(mask)} pixels` : "";
  refresh();
}

function colour() {
  return state.instances.find(({ id }) => id === target)?.colour ?? NEW_COLOUR;
}

function setTarget(id) {
  const isOther = id !== target;
  target = id;
  if (frozen && isOther) keep(frozen);
  const known = state.instances.find((instance) => instance.id === id);
  byId("name").value = known?.name ?? "";
  showTargets(state.instances, target);
  instances.show(state.instances, target);
}

// Start from the mask that the instance has on this image, where there is one.
async function correct(id) {
  if (isSending || sent) return;
  setTarget(id);
  if (id && freeze() && drawing.isEmpty) {
    const image = frozen;
    try {
      if (await image.ready) {
        const { runs } = await getJson(`/api/mask?${new URLSearchParams({ stamp: image.stamp, id })}`);
        const mask = fromRuns(runs, view.width, view.height);
        if (frozen === image && drawing.isEmpty && area(mask)) drawing.add({ kind: "mask", mask });
      }
    } catch (error) {
      if (error instanceof Lost) toast(error.message, "bad"); // else it starts from nothing
    }
  }
  changed();
}

async function send() {
  if (byId("send").disabled) return;
  const image = frozen;
  isSending = true;
  refresh();
  try {
    if (await image.ready) {
      const mask = drawing.mask(view.width, view.height);
      const body = { stamp: image.stamp, runs: toRuns(mask), target, name: byId("name").value };
      sent = (await post("/api/seed", body)).token;
    }
  } catch (error) {
    toast(error.message, "bad");
  }
  isSending = false;
  refresh();
}

async function attempt(run) {
  try {
    await run();
  } catch (error) {
    toast(error.message, "bad");
  }
}

// --- what the tracker says ---

async function watch() {
  for (;;) {
    try {
      state = await getJson("/api/state");
      trouble = state.trouble;
    } catch (error) {
      trouble = error instanceof Lost ? `${error.message}: is \`maskrnn seed-ui\` running? Trying again.` : error.message;
    }
    conclude();
    refresh();
    await sleep(document.hidden ? 2000 : sent ? WAITING_MS : STATE_MS);
  }
}

function conclude() {
  const seed = state.seeds.find(({ token }) => token === sent);
  if (!seed || seed.status === "pending") return;
  toast(describe(seed), seed.status === "applied" ? "good" : "bad");
  sent = null;
  if (seed.status === "applied") thaw();
}

function refresh() {
  if (target && !state.instances.some(({ id }) => id === target)) target = 0;
  byId("trouble").textContent = trouble;
  byId("trouble").hidden = !trouble;
  byId("empty").hidden = Boolean(shown);
  showStatus(state);
  showTargets(state.instances, target);
  instances.show(state.instances, target);
  showSeeds(state.seeds);
  const isBusy = isSending || Boolean(sent);
  const { prompt } = drawing.state;
  document.body.dataset.mode = frozen ? "frozen" : "live";
  byId("mode").textContent = frozen ? "Frozen" : "Live";
  byId("freeze").textContent = frozen ? "Back to live" : "Freeze";
  byId("freeze").disabled = !shown || isSending;
  byId("newest").disabled = !frozen || isBusy;
  byId("newest").classList.toggle("urgent", isTooOld() && !isBusy);
  byId("undo").disabled = !drawing.canUndo || isBusy;
  byId("redo").disabled = !drawing.canRedo || isBusy;
  byId("clear").disabled = drawing.isEmpty || isBusy;
  byId("send").disabled = !frozen || drawing.isEmpty || isBusy || Boolean(prompt?.waiting);
  byId("send").textContent = isBusy ? "Waiting for the tracker …" : target ? `Correct #${target}` : "Add the instance";
  byId("hint").textContent = hint(prompt);
  byId("hint").className = frozen && !isBusy && prompt?.error ? "warn" : "";
}

// Whether the tracker holds the frozen image no more: the seed, which brings it, crosses what is missing in one step.
function isTooOld() {
  const oldest = state.status?.oldest ?? "0";
  return Boolean(frozen) && oldest !== "0" && BigInt(frozen.stamp) < BigInt(oldest);
}

function hint(prompt) {
  if (!shown) return "";
  const seed = sent && state.seeds.find(({ token }) => token === sent);
  if (sent) return seed?.ids.length ? describe(seed) : "Sent. Waiting for the tracker …";
  if (isTooOld()) return "The tracker has let go of the images after this one (buffer.seconds) and must guess across them: N puts the drawing on the newest image.";
  if (prompt?.waiting) return "Looking for the object …";
  if (prompt?.error) return prompt.error;
  if (prompt?.mask) return FOUND;
  return HINTS[tools.name];
}

// --- buttons and keys ---

function choose(name) {
  tools.name = name;
  document.querySelectorAll("[data-tool]").forEach((button) => {
    button.setAttribute("aria-pressed", button.dataset.tool === name);
  });
  byId("sizes").hidden = !tools.isBrush;
  byId("signs").hidden = name !== "point";
  view.redraw();
  refresh();
}

function resizeBrush(radius) {
  tools.radius = Math.max(1, Math.min(100, Math.round(radius)));
  byId("radius").value = tools.radius;
  view.redraw();
}

function step(run) {
  if (isSending || sent) return;
  run();
  drawing.forget();
  changed();
}

const toggle = () => (frozen ? !isSending && thaw() : freeze());
const sign = (isOff) => {
  tools.takesAway = isOff;
  byId("plus").setAttribute("aria-pressed", !isOff);
  byId("minus").setAttribute("aria-pressed", isOff);
};

const KEYS = {
  p: () => choose("point"),
  b: () => choose("box"),
  g: () => choose("polygon"),
  d: () => choose("brush"),
  e: () => choose("eraser"),
  "[": () => resizeBrush(tools.radius / 1.25 - 0.5),
  "]": () => resizeBrush(tools.radius * 1.25 + 0.5),
  " ": toggle,
  n: newest,
  m: () => byId("masks").click(),
  0: () => view.fit(),
  x: () => sign(!tools.takesAway),
  Delete: () => step(() => drawing.clear()),
  Backspace: () => step(() => drawing.undo()),
  Escape: () => (byId("help").open ? byId("help").close() : frozen && !isSending && thaw()),
  Enter: send,
  "?": () => byId("help").showModal(),
};

document.addEventListener("keydown", (event) => {
  const isText = event.target.matches("input[type=text], select");
  const isUndo = (event.ctrlKey || event.metaKey) && ["z", "y"].includes(event.key.toLowerCase());
  if (isUndo && !isText) {
    event.preventDefault();
    const isRedo = event.key.toLowerCase() === "y" || event.shiftKey;
    step(() => (isRedo ? drawing.redo() : drawing.undo()));
    return;
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (isText && !["Enter", "Escape"].includes(event.key)) return;
  if (event.target.matches("button") && ["Enter", " "].includes(event.key)) return; // the button's own
  const run = KEYS[event.key] ?? KEYS[event.key.toLowerCase()];
  if (!run || (byId("help").open && event.key !== "Escape")) return;
  event.preventDefault();
  event.target.blur?.();
  run();
});

// After a click with the mouse Enter is to send, not to press the same button again.
document.addEventListener("click", (event) => event.detail && event.target.closest("button, input[type=checkbox]")?.blur());
byId("canvas").addEventListener("pointerdown", () => document.activeElement?.blur());

const click = (id, run) => byId(id).addEventListener("click", run);
document.querySelectorAll("[data-tool]").forEach((button) => {
  button.addEventListener("click", () => choose(button.dataset.tool));
});
click("undo", () => step(() => drawing.undo()));
click("redo", () => step(() => drawing.redo()));
click("clear", () => step(() => drawing.clear()));
click("freeze", toggle);
click("newest", newest);
click("send", send);
click("plus", () => sign(false));
click("minus", () => sign(true));
click("ask", () => byId("help").showModal());
click("closehelp", () => byId("help").close());
twice(byId("reset"), "Remove all, sure?", () => attempt(() => post("/api/reset", {})));
byId("radius").addEventListener("input", () => resizeBrush(Number(byId("radius").value)));
byId("target").addEventListener("change", () => correct(Number(byId("target").value)));
byId("masks").addEventListener("change", () => {
  if (frozen) keep(frozen); // the same image, with or without
  else shown = shown && "0";
});
document.addEventListener("visibilitychange", refresh);

choose("point");
resizeBrush(12);
live();
watch();
