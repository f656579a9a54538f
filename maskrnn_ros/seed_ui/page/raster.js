// SPDX-License-Identifier: Apache-2.0
// Masks: {width, height, data}, data one byte a pixel, 1 inside. A pixel is inside when its centre is.

export function emptyMask(width, height) {
  return { width, height, data: new Uint8Array(width * height) };
}

export function copyMask(mask) {
  return { ...mask, data: mask.data.slice() };
}

// Even-odd rule; points are [x, y] in pixels, pixel (column u, row v) covers [u, u+1) x [v, v+1).
export function fillPolygon(mask, points, value = 1) {
  const { width, height, data } = mask;
  const ys = points.map((point) => point[1]);
  const first = Math.max(0, Math.floor(Math.min(...ys)));
  const last = Math.min(height - 1, Math.ceil(Math.max(...ys)));
  for (let row = first; row <= last; row++) {
    const y = row + 0.5;
    const crossings = [];
    for (let i = 0, j = points.length - 1; i < points.length; j = i++) {
      const [xi, yi] = points[i];
      const [xj, yj] = points[j];
      if (yi > y !== yj > y) crossings.push(xi + ((y - yi) * (xj - xi)) / (yj - yi));
    }
    crossings.sort((a, b) => a - b);
    for (let k = 0; k + 1 < crossings.length; k += 2) {
      const from = Math.max(0, Math.ceil(crossings[k] - 0.5));
      const to = Math.min(width, Math.ceil(crossings[k + 1] - 0.5));
      if (to > from) data.fill(value, row * width + from, row * width + to);
    }
  }
}

// A round brush along a line of points.
export function fillStroke(mask, points, radius, value = 1) {
  for (let i = 0; i < points.length; i++) fillSegment(mask, points[Math.max(0, i - 1)], points[i], radius, value);
}

export function fillSegment(mask, [x0, y0], [x1, y1], radius, value = 1) {
  const { width, height, data } = mask;
  const dx = x1 - x0;
  const dy = y1 - y0;
  const length2 = dx * dx + dy * dy;
  const left = Math.max(0, Math.floor(Math.min(x0, x1) - radius));
  const right = Math.min(width - 1, Math.ceil(Math.max(x0, x1) + radius));
  const top = Math.max(0, Math.floor(Math.min(y0, y1) - radius));
  const bottom = Math.min(height - 1, Math.ceil(Math.max(y0, y1) + radius));
  for (let row = top; row <= bottom; row++) {
    for (let column = left; column <= right; column++) {
      const px = column + 0.5 - x0;
      const py = row + 0.5 - y0;
      const t = length2 ? Math.max(0, Math.min(1, (px * dx + py * dy) / length2)) : 0;
      const ex = px - t * dx;
      const ey = py - t * dy;
      if (ex * ex + ey * ey <= radius * radius) data[row * width + column] = value;
    }
  }
}

export function addMask(mask, other) {
  for (let i = 0; i < mask.data.length; i++) if (other.data[i]) mask.data[i] = 1;
}

export function area(mask) {
  let sum = 0;
  for (let i = 0; i < mask.data.length; i++) sum += mask.data[i];
  return sum;
}

// Run lengths, row by row, zeros and ones in turn, beginning with the zeros: how masks travel.
export function toRuns(mask) {
  const runs = [];
  let value = 0;
  let start = 0;
  for (let i = 0; i <= mask.data.length; i++) {
    if (i === mask.data.length || mask.data[i] !== value) {
      runs.push(i - start);
      start = i;
      value = 1 - value;
    }
  }
  return runs;
}

export function fromRuns(runs, width, height) {
  const mask = emptyMask(width, height);
  let at = 0;
  runs.forEach((run, i) => {
    if (i % 2) mask.data.fill(1, at, at + run);
    at += run;
  });
  return mask;
}

// A tinted picture of the mask with an opaque edge, as ImageData.
export function tint(mask, [red, green, blue], into) {
  const { width, height, data } = mask;
  const pixels = new Uint32Array(into.data.buffer);
  const tone = (blue << 16) | (green << 8) | red;
  const inside = ((115 << 24) | tone) >>> 0;
  const edge = ((255 << 24) | tone) >>> 0;
  for (let row = 0, i = 0; row < height; row++) {
    for (let column = 0; column < width; column++, i++) {
      if (!data[i]) {
        pixels[i] = 0;
        continue;
      }
      const within =
        column > 0 && column < width - 1 && row > 0 && row < height - 1 &&
        data[i - 1] && data[i + 1] && data[i - width] && data[i + width];
      pixels[i] = within ? inside : edge;
    }
  }
  return into;
}
