// Drawing of the piano roll: spectrogram, octaves, beats, notes, rows of labels, times.  Everything is in pixels of the page, and nothing is kept.
//
// A scene is what is shown: {data, off, from, span, width, colours, font, spectrogram}.  data: as of `ClipEvents.drawing`, with height (of the
// notes in pixels); off: a set of hidden layers; from and span in seconds; width of the view; colours: {ink, reference, predicted}.

import { clock } from "./parts.js";

export const GUTTER = 46;                // names of pitches, left of the notes
const AXIS = 18, LANE = 19;              // times below, a row of labels above
const NAMES = ["C", "C♯", "D", "E♭", "E", "F", "F♯", "G", "A♭", "A", "B♭", "B"];
const STEPS_S = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60];

export const pitchName = (pitch) => `${NAMES[((Math.round(pitch) % 12) + 12) % 12]}${Math.floor(Math.round(pitch) / 12) - 1}`;

export const noteWidth = (scene) => Math.max(1, scene.width - GUTTER);
export const xOf = (scene, time) => GUTTER + (time - scene.from) / scene.span * noteWidth(scene);

// Draw the scene; return {top, row, notes}: where the notes begin and the height of a semitone in pixels, and how many notes were drawn.
export function drawRoll(canvas, scene) {
  const { data, off, width, colours } = scene, lanes = lanesOf(data, off);
  const top = lanes.length * LANE, tall = data.height, scale = devicePixelRatio || 1, height = top + tall + AXIS;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    [canvas.width, canvas.height] = [Math.round(width * scale), Math.round(height * scale)];
    canvas.style.height = `${height}px`;
  }
  const pen = canvas.getContext("2d");
  pen.setTransform(scale, 0, 0, scale, 0, 0);
  pen.clearRect(0, 0, width, height);
  pen.font = `11px ${scene.font}`;
  pen.textBaseline = "middle";
  const { low, high } = data, row = tall / (high - low + 1), y = (pitch) => top + (high - pitch) * row;         // upper edge
  const ink = `rgb(${colours.ink.join(" ")})`, seen = data.sides.filter((side) => !off.has(side.name));
  pen.save();
  pen.beginPath();
  pen.rect(GUTTER, 0, width - GUTTER, height);
  pen.clip();
  pen.fillStyle = ink;
  pen.globalAlpha = 0.04;
  pen.fillRect(GUTTER, top, width, tall);
  pen.globalAlpha = 1;
  if (!off.has("spectrogram")) scene.spectrogram.draw(pen, {
    low, high, top, row, from: scene.from, until: scene.from + scene.span, x: (time) => xOf(scene, time) });
  drawOctaves(pen, scene, row, y, ink);
  for (const side of seen) drawLines(pen, scene, side, top);
  let notes = 0;
  for (const side of seen) notes += drawNotes(pen, scene, side, row, y);
  lanes.forEach((lane, i) => drawLane(pen, scene, lane, i * LANE));
  drawAxis(pen, scene, top + tall, ink);
  pen.restore();
  drawPitches(pen, scene, row, y, ink);
  pen.globalAlpha = 0.85;
  pen.fillStyle = ink;
  pen.textAlign = "left";
  lanes.forEach((lane, i) => pen.fillText(lane.kind, 0, i * LANE + LANE / 2));
  pen.globalAlpha = 1;
  return { top, row, notes };
}

// Rows of labels above the notes: one for each side and kind.
function lanesOf(data, off) {
  if (off.has("spans")) return [];
  return data.sides.filter((side) => !off.has(side.name)).flatMap((side) => side.spans.map((span) => ({ ...span, side: side.name })));
}

function drawOctaves(pen, { data, width }, row, y, ink) {
  pen.fillStyle = ink;
  pen.globalAlpha = 0.18;
  for (let pitch = Math.ceil(data.low / 12) * 12; pitch <= data.high; pitch += 12) pen.fillRect(GUTTER, y(pitch) + row, width, 1);
  pen.globalAlpha = 1;
}

function drawPitches(pen, { data }, row, y, ink) {
  pen.fillStyle = ink;
  pen.textAlign = "right";
  const step = row >= 11 ? 1 : row * 12 >= 11 ? 12 : 24;
  for (let pitch = Math.ceil(data.low / step) * step; pitch <= data.high; pitch += step) {
    pen.globalAlpha = pitch % 12 ? 0.7 : 1;
    pen.fillText(pitchName(pitch), GUTTER - 5, y(pitch) + row / 2);
  }
  pen.globalAlpha = 1;
}

function drawLines(pen, scene, side, top) {
  const { from, off, colours, data } = scene, end = from + scene.span, tall = data.height;
  pen.strokeStyle = colours[side.name];
  pen.setLineDash(side.name === "predicted" ? [5, 4] : []);
  if (!off.has("beats")) {
    side.beats.time.forEach((time, i) => {
      if (time < from || time > end) return;
      pen.lineWidth = side.beats.down[i] ? 2 : 1;
      pen.globalAlpha = side.beats.down[i] ? 0.75 : 0.45;
      pen.beginPath();
      pen.moveTo(xOf(scene, time), top);
      pen.lineTo(xOf(scene, time), top + tall);
      pen.stroke();
    });
  }
  pen.setLineDash([]);
  pen.globalAlpha = 1;
  pen.fillStyle = colours[side.name];
  if (!off.has("onsets")) {
    const base = side.name === "predicted" ? top : top + tall - 10;            // predicted above, labels below
    for (const time of side.onsets) if (time >= from && time <= end) pen.fillRect(xOf(scene, time) - 1, base, 2, 10);
  }
}

// Labels are outlined boxes, predictions are thin bars within them: distinguishable without colour as well.
function drawNotes(pen, scene, side, row, y) {
  const { start, end, pitch } = side.notes, until = scene.from + scene.span, outlined = side.name === "reference";
  let drawn = 0;
  pen.fillStyle = pen.strokeStyle = scene.colours[side.name];
  pen.lineWidth = 1.5;
  for (let i = 0; i < start.length && start[i] <= until; i++) {
    if (end[i] < scene.from) continue;
    const left = xOf(scene, start[i]), wide = Math.max(2, xOf(scene, end[i]) - left), upper = y(pitch[i]);
    drawn++;
    if (outlined) {
      pen.globalAlpha = 0.25;
      pen.fillRect(left, upper + 0.5, wide, Math.max(2, row - 1));
      pen.globalAlpha = 1;
      pen.strokeRect(left + 0.75, upper + 0.75, Math.max(0.5, wide - 1.5), Math.max(1, row - 1.5));
    } else {
      const high = Math.max(2.5, row * 0.42);
      pen.globalAlpha = 0.9;
      pen.fillRect(left, upper + (row - high) / 2, wide, high);
    }
  }
  pen.globalAlpha = 1;
  return drawn;
}

function drawLane(pen, scene, lane, top) {
  const { colours, from } = scene, until = from + scene.span;
  pen.textAlign = "left";
  for (let i = 0; i < lane.start.length; i++) {
    if (lane.end[i] < from || lane.start[i] > until) continue;
    const left = xOf(scene, lane.start[i]), right = xOf(scene, lane.end[i]), begin = Math.max(left, GUTTER);
    pen.save();
    pen.beginPath();
    pen.rect(begin, top, Math.max(1, right - begin), LANE);
    pen.clip();
    pen.globalAlpha = lane.side === "predicted" ? 0.12 : 0.2;
    pen.fillStyle = colours[lane.side];
    pen.fillRect(left, top + 1, right - left, LANE - 2);
    pen.globalAlpha = 1;
    pen.fillRect(left, top + 1, 1.5, LANE - 2);
    pen.fillStyle = `rgb(${colours.ink.join(" ")})`;
    pen.fillText(lane.words[i], begin + 4, top + LANE / 2);
    pen.restore();
  }
}

function drawAxis(pen, scene, top, ink) {
  const { from, span, width } = scene, step = STEPS_S.find((one) => one / span * noteWidth(scene) >= 60) ?? 60;
  pen.fillStyle = ink;
  pen.textAlign = "center";
  pen.globalAlpha = 0.85;
  for (let number = Math.ceil(from / step); number * step <= from + span; number++) {
    const x = xOf(scene, number * step);
    if (x < GUTTER + 14 || x > width - 16) continue;
    pen.fillRect(x, top, 1, 4);
    pen.fillText(step < 1 ? clock(number * step) : clock(number * step).replace(/\.\d$/, ""), x, top + 11);
  }
  pen.globalAlpha = 1;
}

// The notes at a time and a pitch, in words; the pitch and time themselves where there are none.
export function notesAt(data, off, time, pitch) {
  const found = [];
  for (const side of data.sides) {
    if (off.has(side.name)) continue;
    const { start, end, pitch: pitches, words } = side.notes;
    for (let i = 0; i < start.length && start[i] <= time; i++) {
      if (end[i] < time || Math.abs(pitches[i] - pitch) > 0.5) continue;
      found.push(`${pitchName(pitches[i])}  ${clock(start[i])} to ${clock(end[i])}  ${[words[i], side.label].filter(Boolean).join(", ")}`);
    }
  }
  return found.length ? found : [`${pitchName(pitch)}  ${clock(time)}`];
}
