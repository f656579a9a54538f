// SPDX-License-Identifier: Apache-2.0
// What a click would mark, shown while the mouse rests on a picture that nothing is drawn on yet.

import { post } from "./api.js";
import { area, fromRuns } from "./raster.js";

const REST_MS = 120; // so long the mouse stands still before anything is asked
const STILL_PX = 3; // of the screen: less is no movement
const SLOW_MS = 600; // an answer that takes longer comes of a slow backend, a busy robot, a slow line:
const PAUSE_MS = 10_000; // so long nothing is asked after one
const SHOWN_MS = 1000; // on the live picture, which moves on

// hooks: picture() gives {stamp, width, height, still} of what may be looked at, null where a click would not mark a new
// object; show(mask) draws it, null takes it away.
export class Hover {
  constructor(hooks) {
    Object.assign(this, { hooks, place: null, isAsking: false, isShown: false, pausedUntil: 0, timer: 0 });
  }

  // The mouse is at a place of the screen and of the image; null: it is elsewhere, or draws.
  at(place) {
    const near = place && this.place && Math.hypot(place.x - this.place.x, place.y - this.place.y) < STILL_PX;
    if (near) return;
    this.place = place;
    this.hide();
    clearTimeout(this.timer);
    if (place) this.timer = setTimeout(() => this.ask(), REST_MS);
  }

  hide() {
    if (this.isShown) this.hooks.show(null);
    this.isShown = false;
  }

  async ask() {
    const { place } = this;
    const picture = this.hooks.picture();
    const began = performance.now();
    if (!place || !picture || this.isAsking || began < this.pausedUntil) return;
    this.isAsking = true;
    try {
      const point = [...place.point, 1];
      const { runs, unsure } = await post("/api/prompt", { stamp: picture.stamp, points: [point], preview: true });
      if (performance.now() - began > SLOW_MS) this.pausedUntil = performance.now() + PAUSE_MS;
      if (this.place === place && runs && !unsure) this.show(picture, fromRuns(runs, picture.width, picture.height));
    } catch {
      // whatever it is, a click will tell
    }
    this.isAsking = false;
    if (this.place && this.place !== place) this.timer = setTimeout(() => this.ask(), REST_MS); // it has moved meanwhile
  }

  show(picture, mask) {
    const now = this.hooks.picture();
    const isStillThere = now && (now.still ? now.stamp === picture.stamp : !picture.still);
    if (!isStillThere || !area(mask)) return;
    this.isShown = true;
    this.hooks.show(mask);
    const { place } = this;
    if (!now.still) setTimeout(() => this.place === place && this.hide(), SHOWN_MS);
  }
}
