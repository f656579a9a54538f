// SPDX-License-Identifier: Apache-2.0
// The picture on the canvas: fitted to the window or zoomed, with the drawing on top.

import { tint } from "./raster.js";

const MOST_ZOOM = 24;

export class View {
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.picture = null; // ImageBitmap, perhaps smaller than the image that it shows
    this.width = 0; // of the image, pixels
    this.height = 0;
    this.zoom = 1; // 1 = the whole image fits
    this.centre = [0.5, 0.5]; // of the view, as a share of the image
    this.layer = document.createElement("canvas");
    this.layerData = null;
    this.decorate = () => {};
    this.pending = false;
    new ResizeObserver(() => this.resize()).observe(canvas);
    this.resize();
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = Math.max(1, Math.round(this.canvas.clientWidth * ratio));
    this.canvas.height = Math.max(1, Math.round(this.canvas.clientHeight * ratio));
    this.ratio = ratio;
    this.redraw();
  }

  show(picture, width, height) {
    if (width !== this.width || height !== this.height) this.fit();
    this.picture?.close();
    Object.assign(this, { picture, width, height });
    this.redraw();
  }

  fit() {
    this.zoom = 1;
    this.centre = [0.5, 0.5];
    this.redraw();
  }

  // Screen pixels (of the canvas' buffer) for one pixel of the image.
  get scale() {
    return Math.min(this.canvas.width / this.width, this.canvas.height / this.height) * this.zoom;
  }

  get origin() {
    const { scale } = this;
    return [
      this.canvas.width / 2 - this.centre[0] * this.width * scale,
      this.canvas.height / 2 - this.centre[1] * this.height * scale,
    ];
  }

  // Position in the image of a pointer event.
  toImage(event) {
    const place = this.canvas.getBoundingClientRect();
    const [ox, oy] = this.origin;
    return [
      ((event.clientX - place.left) * this.ratio - ox) / this.scale,
      ((event.clientY - place.top) * this.ratio - oy) / this.scale,
    ];
  }

  toScreen([x, y]) {
    const [ox, oy] = this.origin;
    return [ox + x * this.scale, oy + y * this.scale];
  }

  // Zoom about a place of the screen, which stays where it is.
  zoomAt(event, factor) {
    if (!this.picture) return;
    const before = this.toImage(event);
    this.zoom = Math.max(1, Math.min(MOST_ZOOM, this.zoom * factor));
    const after = this.toImage(event);
    this.moveBy(before[0] - after[0], before[1] - after[1]);
  }

  // By pixels of the image; it does not leave the window.
  moveBy(dx, dy) {
    const move = (centre, by, size, screen) => {
      const half = Math.min(0.5, screen / (2 * size * this.scale));
      return Math.max(half, Math.min(1 - half, centre + by / size));
    };
    this.centre = [
      move(this.centre[0], dx, this.width, this.canvas.width),
      move(this.centre[1], dy, this.height, this.canvas.height),
    ];
    this.redraw();
  }

  // The mask as it is drawn; null takes it away.
  setMask(mask, colour) {
    if (!mask) {
      this.layerData = null;
    } else {
      if (this.layerData?.width !== mask.width || this.layerData?.height !== mask.height) {
        this.layer.width = mask.width;
        this.layer.height = mask.height;
        this.layerData = new ImageData(mask.width, mask.height);
      }
      this.layer.getContext("2d").putImageData(tint(mask, colour, this.layerData), 0, 0);
    }
    this.redraw();
  }

  redraw() {
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      this.paint();
    });
  }

  paint() {
    const { context, canvas, scale } = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (!this.picture) return;
    const [ox, oy] = this.origin;
    const box = [ox, oy, this.width * scale, this.height * scale];
    context.imageSmoothingEnabled = scale < 3;
    context.drawImage(this.picture, ...box);
    if (this.layerData) context.drawImage(this.layer, ...box);
    this.decorate(context);
  }
}
