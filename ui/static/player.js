// The player: the app's only <audio> element, its queue and keys.  It is attached to the page's body, so it survives page changes and
// reruns; the queue and the place are kept in the tab's session storage and survive a reload.  `bar.js` draws it.
//
// A song: {clip_id, title, artist, album, start_s, duration_s, track}.  `playNow` plays the whole recording from start_s, the start of the
// clip; in the queue a song begins at queue_s, without it at the beginning of the recording.
// Window events: "tonelake:playing" {clip_id, paused} when the sounding song starts, pauses or changes; "tonelake:time" {clip_id, time_s}
// while it plays (seconds from the start of the recording); "tonelake:queue" when the queue or a message changes.

import { recordingOf, titleOf } from "./parts.js";

export * from "./parts.js";

const KEPT = "tonelake.player", LOUDNESS = "tonelake.volume";        // keys of session and local storage
const LONGEST_QUEUE = 1000;
const STEP_S = 5;                        // left and right arrows
const RESTART_S = 3;                     // "previous" first returns to the start of the song, when more than this has been played

const state = { queue: [], at: -1, message: "" };
const audio = document.createElement("audio");
audio.preload = "metadata";
audio.id = "tonelake-audio";
let startsAt = 0;                        // seconds, applied when the recording has been loaded
let keptAt = 0;                          // when the place was written last, ms

// -- what other components use

// Play a song at once, from `at_s` of its recording or from the start of its clip.  It is inserted after the current song.
export function playNow(song, at_s) {
  const wanted = songOf(song), known = current();
  if (known?.clip_id !== wanted.clip_id) {
    state.queue = state.queue.filter((one, i) => i <= state.at || one.clip_id !== wanted.clip_id);
    state.queue.splice(state.at + 1, 0, wanted);
    state.at += 1;
    shorten();
  }
  start(at_s ?? wanted.start_s);
}

// Append songs to the queue.  The first one is made ready, but does not start, if the queue was empty.
export function enqueue(songs) {
  const known = new Set(state.queue.slice(Math.max(state.at, 0)).map((song) => song.clip_id));
  const added = songs.map(queued).filter((song) => !known.has(song.clip_id));
  const first = state.queue.length === 0 && added.length > 0;
  state.queue.push(...added);
  shorten();
  if (first) {
    state.at = 0;
    load(state.queue[0].start_s);
  }
  changed();
  return added.length;
}

// Replace the queue by these songs and play the first one.
export function playAll(songs) {
  state.queue = songs.slice(0, LONGEST_QUEUE).map(queued);
  state.at = state.queue.length ? 0 : -1;
  if (state.at === 0) start(state.queue[0].start_s); else changed();
}

// The clip id of the song that is loaded in the player, sounding or paused; null without one.
export const playing = () => current()?.clip_id ?? null;
export const paused = () => audio.paused;
export const current = () => state.queue[state.at] ?? null;
// Seconds from the start of the recording, of the place and of the end.
export const place = () => ({ time_s: startsAt || audio.currentTime, end_s: Number.isFinite(audio.duration) ? audio.duration : 0 });
export const queue = () => ({ songs: [...state.queue], at: state.at, message: state.message });

export function toggle() {
  if (!current()) return;
  if (!audio.paused) audio.pause();
  else if (audio.ended) start(0);
  else resume();
}

export function pause() { audio.pause(); }

// Move to a time of the recording, in seconds.
export function seekTo(time_s) {
  if (!current()) return;
  const wanted = Math.max(0, Math.min(time_s, audio.duration || Infinity));
  if (audio.readyState > 0) audio.currentTime = wanted; else startsAt = wanted;
  announceTime();
}

export function next() { jump(state.at + 1); }

export function previous() {
  const begin = current()?.start_s ?? 0;
  if (state.at <= 0 || audio.currentTime > begin + RESTART_S) seekTo(audio.currentTime > begin + RESTART_S ? begin : 0);
  else jump(state.at - 1);
}

// Play the i-th song of the queue.
export function jump(i) {
  if (!state.queue[i]) return;
  state.at = i;
  start(state.queue[i].start_s);
}

// Move the i-th song of the queue to place j.
export function reorder(i, j) {
  if (!state.queue[i] || !state.queue[j]) return;
  const sounding = current(), [moved] = state.queue.splice(i, 1);
  state.queue.splice(j, 0, moved);
  state.at = state.queue.indexOf(sounding);
  changed();
}

export function remove(i) {
  if (!state.queue[i]) return;
  const wasCurrent = i === state.at, sounded = !audio.paused;
  state.queue.splice(i, 1);
  if (i < state.at) state.at -= 1;
  if (!wasCurrent) return changed();
  state.at = Math.min(state.at, state.queue.length - 1);
  if (!current()) return clear();
  if (sounded) start(current().start_s);
  else {
    load(current().start_s);
    changed();
  }
}

// Empty the queue and stop.
export function clear() {
  Object.assign(state, { queue: [], at: -1, message: "" });
  audio.pause();
  audio.removeAttribute("src");
  delete audio.dataset.clip;
  changed();
  announce();
}

export const volume = () => (audio.muted ? 0 : audio.volume);

export function setVolume(share) {
  audio.muted = share <= 0;
  if (share > 0) audio.volume = Math.min(share, 1);
  try { localStorage.setItem(LOUDNESS, String(share)); } catch { /* storage is switched off */ }
}

// -- the element

function songOf(song) {
  return {
    clip_id: song.clip_id, title: titleOf(song), artist: song.artist ?? "", album: song.album ?? "",
    start_s: song.start_s ?? 0, duration_s: song.duration_s ?? null,
  };
}

const queued = (song) => ({ ...songOf(song), start_s: song.queue_s ?? 0 });

function shorten() {
  const over = state.queue.length - LONGEST_QUEUE;
  if (over <= 0) return;
  const before = Math.min(over, Math.max(state.at, 0));             // songs that have been played are dropped first
  state.queue.splice(0, before);
  state.at -= before;
  state.queue.length = LONGEST_QUEUE;
}

function load(from_s) {
  const song = current();
  state.message = "";
  startsAt = from_s;
  if (audio.dataset.clip !== song.clip_id || audio.error) {
    audio.dataset.clip = song.clip_id;
    audio.src = recordingOf(song.clip_id) + (from_s > 0 ? `#t=${from_s}` : "");
  } else if (audio.readyState > 0) {
    audio.currentTime = from_s;
    startsAt = 0;
  }
}

function start(from_s) {
  load(from_s);
  changed();
  resume();
}

function resume() {
  audio.play().catch((error) => {
    if (error.name === "NotAllowedError") say("The browser requires a click before it plays audio. Press play.");
  });
}

function say(message) {
  state.message = message;
  tell("tonelake:queue", {});
}

async function explainError() {
  const clip = audio.dataset.clip;
  if (!clip || !audio.getAttribute("src")) return;
  const answer = await fetch(recordingOf(clip), { headers: { Range: "bytes=0-99" } }).catch(() => null);
  if (audio.dataset.clip !== clip) return;
  say(answer ? (await answer.json().catch(() => ({}))).error ?? "This recording cannot be played by the browser." : "The app does not answer. Check that `tonelake ui` is still running.");
  announce();
}

function tell(name, detail) { window.dispatchEvent(new CustomEvent(name, { detail })); }

function announce() {
  tell("tonelake:playing", { clip_id: playing(), paused: audio.paused });
  const session = navigator.mediaSession, song = current();
  if (!session) return;
  session.playbackState = !song ? "none" : audio.paused ? "paused" : "playing";
  session.metadata = song ? new MediaMetadata({ title: song.title, artist: song.artist, album: song.album }) : null;
}

function announceTime() { tell("tonelake:time", { clip_id: playing(), ...place() }); }

function changed() {
  keep();
  tell("tonelake:queue", {});
}

function keep() {
  keptAt = performance.now();
  const { queue: songs, at } = state;
  try { sessionStorage.setItem(KEPT, JSON.stringify({ songs, at, time_s: place().time_s })); } catch { /* full, or switched off */ }
}

// The queue and the place before a reload; the song waits there, paused.
function restore() {
  try {
    const share = Number(localStorage.getItem(LOUDNESS) ?? 1);
    if (share >= 0 && share <= 1) setVolume(share);
    const known = JSON.parse(sessionStorage.getItem(KEPT) ?? "{}");
    if (!Array.isArray(known.songs) || !known.songs[known.at]) return;
    state.queue = known.songs.map(songOf);
    state.at = known.at;
    load(Number(known.time_s) || 0);
  } catch { /* kept by another release, or storage is switched off */ }
}

for (const kind of ["play", "pause", "emptied"]) audio.addEventListener(kind, announce);
audio.addEventListener("playing", () => performance.mark("tonelake:sound"));
audio.addEventListener("loadedmetadata", () => {
  if (startsAt && Math.abs(audio.currentTime - startsAt) > 0.05) audio.currentTime = Math.min(startsAt, audio.duration || startsAt);
  startsAt = 0;
  announceTime();
});
audio.addEventListener("timeupdate", () => {
  announceTime();
  if (performance.now() - keptAt > 1000) keep();
});
audio.addEventListener("ended", () => { if (state.queue[state.at + 1]) next(); else announce(); });
audio.addEventListener("error", explainError);
window.addEventListener("pagehide", keep);
for (const [action, handler] of Object.entries({
  play: toggle, pause: toggle, previoustrack: previous, nexttrack: next, seekto: (event) => seekTo(event.seekTime),
  seekbackward: () => seekTo(audio.currentTime - STEP_S), seekforward: () => seekTo(audio.currentTime + STEP_S),
})) {
  try { navigator.mediaSession?.setActionHandler(action, handler); } catch { /* an action that this browser does not have */ }
}
document.body.append(audio);
restore();

// -- keys: space plays or pauses, left and right seek, with Shift they change the song

let byPointer = false;                   // whether the focus was moved by a click, not by the Tab key
window.addEventListener("pointerdown", () => { byPointer = true; }, true);
window.addEventListener("keydown", (event) => { if (event.key === "Tab") byPointer = false; }, true);

const TEXT = "input:not([type=checkbox], [type=radio], [type=range], [type=button], [type=submit], [type=file]), textarea, select, [contenteditable=true], [role=combobox], [role=listbox], [role=textbox], [role=menu], [data-testid=stDataFrame]";
const PRESSED = "button, a[href], summary, audio, video, [role=button], [role=tab], [role=checkbox], [role=switch], [role=radio], input[type=checkbox], input[type=radio], input[type=button], input[type=submit], input[type=file]";
const ARROWS = "input[type=range], input[type=radio], [role=slider], [role=radiogroup], [role=tablist], [role=tab], [role=grid], audio, video";
const within = (event, selector) => event.composedPath().some((at) => at instanceof Element && at.matches(selector));

// Whether a key press belongs to the element with the focus.  A button keeps Space only if it was reached by the keyboard.
function taken(event) {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || within(event, TEXT)) return true;
  return event.key === " " ? !byPointer && within(event, PRESSED) : within(event, ARROWS);
}

let swallowed = false;                   // whether the release of Space must not press the focused button
window.addEventListener("keydown", (event) => {
  if (!current() || ![" ", "ArrowLeft", "ArrowRight"].includes(event.key) || taken(event)) return;
  const way = event.key === "ArrowLeft" ? -1 : 1;
  event.preventDefault();
  if (event.key === " ") {
    swallowed = true;
    if (!event.repeat) toggle();
  } else if (event.shiftKey) (way < 0 ? previous : next)();
  else seekTo(place().time_s + way * STEP_S);
});
window.addEventListener("keyup", (event) => {
  if (event.key === " " && swallowed) event.preventDefault();
  if (event.key === " ") swallowed = false;
}, true);

// Pause the player when another <audio> starts, such as that of an uploaded file, and the other way round.
export function joinPlayers(other) {
  other.addEventListener("play", () => audio.pause());
  audio.addEventListener("play", () => other.pause());
}
