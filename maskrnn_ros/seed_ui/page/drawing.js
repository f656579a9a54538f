// SPDX-License-Identifier: Apache-2.0
// What has been drawn, with undo and redo. A state is never changed; every step makes a new one.

import { addMask, copyMask, emptyMask, fillPolygon, fillStroke } from "./raster.js";

const START = { shapes: null, polygon: [], prompt: null };

// shapes: a chain {parent, kind: "polygon" | "stroke" | "mask" | "prompt", ...}, newest first
// polygon: vertices that are not closed yet
// prompt: {box, points, mask, mends, error}: its mask comes later, from the server; with mends it takes the place of all
// that was drawn before, which it started from
export class Drawing {
  constructor() {
    this.history = [START];
    this.at = 0;
    this.cache = null;
  }

  get state() {
    return this.history[this.at];
  }

  get isEmpty() {
    const { shapes, polygon, prompt } = this.state;
    return !shapes && !polygon.length && !prompt;
  }

  get canUndo() {
    return this.at > 0;
  }

  get canRedo() {
    return this.at < this.history.length - 1;
  }

  push(change) {
    this.history.length = this.at + 1;
    this.history.push({ ...this.state, ...change });
    this.at++;
  }

  undo() {
    if (this.canUndo) this.at--;
  }

  redo() {
    if (this.canRedo) this.at++;
  }

  clear() {
    if (!this.isEmpty) this.push(START);
  }

  // A brush stroke, eraser stroke or given mask; what a prompt has found becomes part of the drawing first.
  add(shape) {
    this.push({ shapes: { ...shape, parent: this.settled() }, prompt: null });
  }

  addVertex(point) {
    this.push({ polygon: [...this.state.polygon, point] });
  }

  closePolygon() {
    const { polygon } = this.state;
    if (polygon.length < 3) return false;
    this.push({ shapes: { kind: "polygon", points: polygon, parent: this.settled() }, polygon: [], prompt: null });
    return true;
  }

  setPrompt(prompt) {
    this.push({ prompt });
  }

  settled() {
    const { shapes, prompt } = this.state;
    return prompt ? { kind: "prompt", prompt, parent: shapes } : shapes;
  }

  // What was drawn before a prompt.
  before(width, height) {
    return this.base(this.state.shapes, width, height);
  }

  // To be called when the mask of a prompt has come.
  forget() {
    this.cache = null;
  }

  // Everything, an open polygon included: what is sent.
  mask(width, height) {
    const { polygon, prompt, shapes } = this.state;
    const out = copyMask(this.base(shapes, width, height));
    if (prompt?.mask) addPrompt(out, prompt);
    if (polygon.length > 2) fillPolygon(out, polygon);
    return out;
  }

  base(shapes, width, height) {
    if (this.cache?.shapes === shapes) return this.cache.mask;
    const steps = [];
    let mask = null;
    for (let shape = shapes; shape && !mask; shape = shape.parent) {
      if (this.cache?.shapes === shape) mask = this.cache.mask;
      else steps.push(shape);
    }
    mask = mask ?? emptyMask(width, height);
    while (steps.length) apply(mask, steps.pop());
    this.cache = { shapes, mask };
    return mask;
  }
}

function addPrompt(mask, prompt) {
  if (prompt.mends) mask.set(prompt.mask);
  else addMask(mask, prompt.mask);
}

function apply(mask, shape) {
  if (shape.kind === "polygon") fillPolygon(mask, shape.points);
  else if (shape.kind === "stroke") fillStroke(mask, shape.points, shape.radius, shape.erase ? 0 : 1);
  else if (shape.kind === "prompt" && shape.prompt.mask) addPrompt(mask, shape.prompt);
  else if (shape.kind === "mask") addMask(mask, shape.mask);
}
