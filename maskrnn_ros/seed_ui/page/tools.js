// SPDX-License-Identifier: Apache-2.0
// The tools: what mouse, pen and fingers on the canvas do.

import { copyMask, fillSegment } from "./raster.js";

const NEAR_PX = 12; // of the screen: a click so near to the first vertex closes the polygon
const DRAG_PX = 5;

export const FOUND = "Right? Enter sends it. Else click on what is missing, right-click on what is too much.";

export const HINTS = {
  point: "Click on an object. Rest the mouse on one to see what a click would mark.",
  box: "Drag a box around the object. Then click with the point tool to mend the mask. Enter sends.",
  polygon: "Click around the object; a click on the first corner closes the polygon. Enter sends.",
  brush: "Paint the object; [ and ] change the brush. Enter sends.",
  eraser: "Rub out what does not belong to the object; [ and ] change the size. Enter sends.",
};

// hooks: freeze() makes the shown image stand still, changed() after a change of the drawing, ask(prompt) wants its
// mask, stroke(mask) shows a stroke as it grows, corrects() says whether an instance is corrected, rest({x, y, point})
// hears where the mouse is, with no button held, null where it is not.
export class Tools {
  constructor(view, drawing, hooks) {
    Object.assign(this, { view, drawing, hooks });
    this.name = "point";
    this.radius = 12;
    this.takesAway = false; // the point tool marks what is not on the object
    this.pointers = new Map();
    this.action = null;
    this.cursor = null;
    const on = (name, run) => view.canvas.addEventListener(name, run);
    on("pointerdown", (event) => this.down(event));
    on("pointermove", (event) => this.move(event));
    on("pointerup", (event) => this.up(event));
    on("pointercancel", (event) => this.cancel(event));
    on("pointerleave", () => {
      this.hover(null);
      this.hooks.rest(null);
    });
    on("contextmenu", (event) => event.preventDefault());
    on("wheel", (event) => {
      event.preventDefault();
      view.zoomAt(event, Math.exp(-event.deltaY * 0.0015));
    });
    view.decorate = (context) => this.decorate(context);
  }

  down(event) {
    if (!this.view.picture) return;
    event.preventDefault();
    this.hooks.rest(null);
    this.view.canvas.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, event);
    if (this.pointers.size > 1 || event.button === 1) {
      this.abandon(); // two fingers move and zoom
      this.action = { kind: "pan" };
      return;
    }
    const at = this.inside(this.view.toImage(event));
    if (!this.hooks.freeze()) return;
    this.action = { kind: this.name, from: at, to: at, start: event, points: [at] };
    if (this.isBrush) {
      this.action.mask = copyMask(this.drawing.mask(this.view.width, this.view.height));
      this.paint(at, at);
    }
  }

  move(event) {
    this.hover(event.pointerType === "touch" ? null : this.view.toImage(event));
    this.rest(event);
    const before = this.pointers.get(event.pointerId);
    if (!before || !this.action) return;
    if (this.action.kind === "pan") {
      this.pan(before, event);
    } else {
      const at = this.inside(this.view.toImage(event));
      if (this.isBrush) this.paint(this.action.points.at(-1), at);
      this.action.points.push(at);
      this.action.to = at;
      this.view.redraw();
    }
    this.pointers.set(event.pointerId, event);
  }

  up(event) {
    this.pointers.delete(event.pointerId);
    const { action } = this;
    if (!action) return;
    if (action.kind === "pan") {
      if (!this.pointers.size) this.action = null;
      return;
    }
    this.action = null;
    const moved = Math.hypot(event.clientX - action.start.clientX, event.clientY - action.start.clientY) > DRAG_PX;
    this.finish(action, event, moved);
    this.hooks.changed();
  }

  finish(action, event, moved) {
    const { drawing } = this;
    if (action.kind === "brush" || action.kind === "eraser") {
      const { points } = action;
      if (drawing.state.polygon.length > 2) drawing.closePolygon();
      drawing.add({ kind: "stroke", points, radius: this.radius, erase: action.kind === "eraser" });
    } else if (action.kind === "polygon") {
      const { polygon } = drawing.state;
      const first = polygon.length > 2 && this.distance(polygon[0], action.to) < NEAR_PX;
      if (first) drawing.closePolygon();
      else drawing.addVertex(action.to);
    } else if (action.kind === "box" && moved) {
      const [x0, x1] = [action.from[0], action.to[0]].sort((a, b) => a - b).map(Math.round);
      const [y0, y1] = [action.from[1], action.to[1]].sort((a, b) => a - b).map(Math.round);
      if (x1 > x0 && y1 > y0) this.prompt({ box: [x0, y0, x1, y1], points: [] });
    } else if (action.kind === "point" || (action.kind === "box" && drawing.state.prompt)) {
      const isOff = this.takesAway || event.button === 2 || action.start.button === 2 || event.shiftKey;
      // a click on an instance that is corrected mends its mask
      const mends = Boolean(this.hooks.corrects() && drawing.state.shapes);
      const former = drawing.state.prompt ?? { box: null, points: [], mends };
      const points = [...former.points, [...action.to, isOff ? 0 : 1]];
      if (former.box || former.mends || points.some((point) => point[2])) {
        this.prompt({ box: former.box, points, mends: former.mends });
      }
    }
  }

  prompt({ box, points, mends = false }) {
    const former = this.drawing.state.prompt;
    const prompt = { box, points, mends, mask: former?.mask ?? null, error: "" };
    this.drawing.setPrompt(prompt);
    this.hooks.ask(prompt);
  }

  cancel(event) {
    this.pointers.delete(event.pointerId);
    this.abandon();
  }

  abandon() {
    const was = this.action;
    this.action = null;
    if (was && was.kind !== "pan") this.hooks.changed();
  }

  paint(from, to) {
    fillSegment(this.action.mask, from, to, this.radius, this.action.kind === "eraser" ? 0 : 1);
    this.hooks.stroke(this.action.mask);
  }

  pan(before, event) {
    const { view } = this;
    const others = [...this.pointers.values()].filter((pointer) => pointer.pointerId !== event.pointerId);
    const [a, b] = [view.toImage(before), view.toImage(event)];
    const share = others.length ? 0.5 : 1; // of two fingers each moves the picture by half
    view.moveBy((a[0] - b[0]) * share, (a[1] - b[1]) * share);
    if (others.length) {
      const [other] = others;
      const apart = (pointer) => Math.hypot(pointer.clientX - other.clientX, pointer.clientY - other.clientY);
      const middle = { clientX: (event.clientX + other.clientX) / 2, clientY: (event.clientY + other.clientY) / 2 };
      view.zoomAt(middle, apart(event) / Math.max(1, apart(before)));
    }
  }

  rest(event) {
    const { picture } = this.view;
    const point = this.view.toImage(event);
    const isOn = picture && event.pointerType !== "touch" && !event.buttons && this.isInside(point);
    this.hooks.rest(isOn ? { x: event.clientX, y: event.clientY, point } : null);
  }

  hover(at) {
    this.cursor = at;
    this.view.redraw();
  }

  get isBrush() {
    return this.name === "brush" || this.name === "eraser";
  }

  isInside([x, y]) {
    return x >= 0 && y >= 0 && x < this.view.width && y < this.view.height;
  }

  inside([x, y]) {
    const last = 1e-3;
    const { width, height } = this.view;
    return [Math.max(0, Math.min(width - last, x)), Math.max(0, Math.min(height - last, y))];
  }

  // On the screen, in CSS pixels.
  distance(a, b) {
    return (Math.hypot(a[0] - b[0], a[1] - b[1]) * this.view.scale) / this.view.ratio;
  }

  decorate(context) {
    const { polygon, prompt } = this.drawing.state;
    const { view, action } = this;
    const line = (width, colour) => Object.assign(context, { lineWidth: width * view.ratio, strokeStyle: colour });
    const rectangle = ([x0, y0, x1, y1]) => {
      const [[left, top], [right, bottom]] = [view.toScreen([x0, y0]), view.toScreen([x1, y1])];
      for (const [width, colour] of [[3, "#000a"], [1.5, "#fff"]]) {
        line(width, colour);
        context.strokeRect(left, top, right - left, bottom - top);
      }
    };
    if (action?.kind === "box") rectangle([...action.from, ...action.to]);
    else if (prompt?.box) rectangle(prompt.box);
    if (polygon.length) this.outline(context, polygon, line);
    for (const [x, y, on] of prompt?.points ?? []) this.dot(context, [x, y], on ? "#3ddc84" : "#ff5c5c", on ? "+" : "−");
    if (this.cursor && this.isBrush) {
      const [x, y] = view.toScreen(this.cursor);
      for (const [width, colour] of [[3, "#0008"], [1.2, "#fff"]]) {
        line(width, colour);
        context.beginPath();
        context.arc(x, y, this.radius * view.scale, 0, 2 * Math.PI);
        context.stroke();
      }
    }
  }

  outline(context, polygon, line) {
    const corners = polygon.map((point) => this.view.toScreen(point));
    const path = this.cursor && this.name === "polygon" ? [...corners, this.view.toScreen(this.cursor)] : corners;
    for (const [width, colour] of [[3.5, "#000a"], [1.5, "#fff"]]) {
      line(width, colour);
      context.beginPath();
      path.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
      context.stroke();
    }
    corners.forEach((corner, i) => {
      context.beginPath();
      context.arc(...corner, (i ? 3.5 : 6) * this.view.ratio, 0, 2 * Math.PI);
      context.fillStyle = i ? "#fff" : "#ffd54a";
      context.fill();
      line(1, "#000a");
      context.stroke();
    });
  }

  dot(context, point, colour, sign) {
    const [x, y] = this.view.toScreen(point);
    const radius = 7 * this.view.ratio;
    context.beginPath();
    context.arc(x, y, radius, 0, 2 * Math.PI);
    Object.assign(context, { fillStyle: colour, lineWidth: 2 * this.view.ratio, strokeStyle: "#fff" });
    context.fill();
    context.stroke();
    Object.assign(context, { fillStyle: "#000", font: `bold ${11 * this.view.ratio}px sans-serif` });
    Object.assign(context, { textAlign: "center", textBaseline: "middle" });
    context.fillText(sign, x, y + 0.5 * this.view.ratio);
  }
}
