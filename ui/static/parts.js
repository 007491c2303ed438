// Helpers of all components: mounting, addresses of the app's routes, names and times as text, icons, requests.

// Interface for Streamlit's loader: one `Part` for each place on the page, updated on each rerun and freed with the place.
export function mountable(Part) {
  const known = new WeakMap();
  return {
    mount(component) {
      const host = component.parentElement;
      if (!known.has(host)) known.set(host, new Part(host));
      known.get(host).update(component);
    },
    unmount(host) {
      known.get(host)?.free();
      known.delete(host);
    },
  };
}

export const audioOf = (clip) => `/tonelake/audio/${encodeURIComponent(clip)}`;
export const recordingOf = (clip) => `/tonelake/recording/${encodeURIComponent(clip)}`;
export const pictureOf = (clip) => `/tonelake/spectrogram/${encodeURIComponent(clip)}`;
export const clock = (seconds) => `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;
// Minutes and whole seconds, as players show them.
export const minutes = (seconds) => `${Math.floor(Math.round(seconds) / 60)}:${String(Math.round(seconds) % 60).padStart(2, "0")}`;
const AUDIO_SUFFIX = /\.(?:flac|mp[234]|og[ag]|opus|m4[ab]|wave?|w64|aac|ac3|wma|wv|ape|tta|mka|webm|aif[fc]?|au|caf)$/i;
// The title of a song; without one the name of its file without the audio suffix, never a path.
export const titleOf = (clip) => clip.title || fileName(clip.source) || fileName(clip.track) || "Untitled";
export const byOf = (clip) => [clip.artist, clip.album].filter(Boolean).join(" · ");
// Artist, album and the time of a moment, in seconds of the recording.
export const placeOf = (clip, at_s = clip.start_s ?? 0) => [byOf(clip), minutes(at_s)].filter(Boolean).join(" · ");

function fileName(path) {
  const last = (path ?? "").split("/").filter(Boolean).pop() ?? "", name = last.replace(AUDIO_SUFFIX, "");
  if (!(path ?? "").startsWith("file://")) return name;
  try { return decodeURIComponent(last).replace(AUDIO_SUFFIX, ""); } catch { return name; }
}

// Create an element with text, never markup: names come from untrusted files.
export function element(kind, { text, children = [], ...properties } = {}) {
  const made = Object.assign(document.createElement(kind), properties);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

const PATHS = {                          // icons of 24 × 24
  play: "M8 5v14l11-7z", pause: "M6 5h4v14H6zm8 0h4v14h-4z", next: "M6 18l8.5-6L6 6zm10-12v12h2V6z", previous: "M6 6h2v12H6zm3.5 6l8.5 6V6z",
  queue: "M3 6h12v2H3zm0 5h12v2H3zm0 5h8v2H3zm14-5v8l5-4z", close: "M6.4 5L5 6.4 10.6 12 5 17.6 6.4 19l5.6-5.6 5.6 5.6 1.4-1.4L13.4 12 19 6.4 17.6 5 12 10.6z",
  up: "M12 8l-6 6 1.4 1.4L12 10.8l4.6 4.6L18 14z", down: "M12 16l6-6-1.4-1.4L12 13.2 7.4 8.6 6 10z", more: "M5 10.5a1.5 1.5 0 1 0 0 3 1.5 1.5 0 0 0 0-3zm7 0a1.5 1.5 0 1 0 0 3 1.5 1.5 0 0 0 0-3zm7 0a1.5 1.5 0 1 0 0 3 1.5 1.5 0 0 0 0-3z",
  open: "M9.3 6.7L14.6 12l-5.3 5.3 1.4 1.4L17.4 12l-6.7-6.7z", plus: "M11 5h2v6h6v2h-6v6h-2v-6H5v-2h6z", minus: "M5 11h14v2H5z",
  map: "M12 2a7 7 0 0 0-7 7c0 5 7 13 7 13s7-8 7-13a7 7 0 0 0-7-7zm0 4.5A2.5 2.5 0 1 1 12 11.5a2.5 2.5 0 0 1 0-5z",
  loud: "M4 9v6h4l5 5V4L8 9zm11.5 3A3.5 3.5 0 0 0 13.9 9v6a3.5 3.5 0 0 0 1.6-3zM14 4.2v2.1a6 6 0 0 1 0 11.4v2.1a8 8 0 0 0 0-15.6z", mute: "M4 9v6h4l5 5V4L8 9zm17-.6L19.6 7 17 9.6 14.4 7 13 8.4l2.6 2.6L13 13.6l1.4 1.4 2.6-2.6 2.6 2.6 1.4-1.4-2.6-2.6z",
};

// An icon, hidden from screen readers: its button has an aria-label.
export function icon(name) {
  const space = "http://www.w3.org/2000/svg", svg = document.createElementNS(space, "svg"), path = document.createElementNS(space, "path");
  for (const [key, value] of Object.entries({ viewBox: "0 0 24 24", width: 20, height: 20, "aria-hidden": "true", class: "icon" })) svg.setAttribute(key, value);
  path.setAttribute("d", PATHS[name]);
  path.setAttribute("fill", "currentColor");
  svg.append(path);
  return svg;
}

const AT_ONCE = 3;                       // pictures; a browser has six connections to a server, and sound must not wait for one
const waiting = [];
let loading = 0;
const seen = new IntersectionObserver((entries) => {
  for (const { isIntersecting, target } of entries) {
    if (!isIntersecting) continue;
    seen.unobserve(target);
    waiting.push(target);
  }
  loadNext();
}, { rootMargin: "200px" });

// Load an <img> once it comes into view, a few at a time.
export function loadPicture(image, url) {
  image.dataset.url = url;
  seen.observe(image);
}

function loadNext() {
  while (loading < AT_ONCE && waiting.length) {
    const image = waiting.shift();
    if (!image.isConnected) continue;    // its list has been replaced
    loading += 1;
    const done = () => {
      loading -= 1;
      loadNext();
    };
    image.addEventListener("load", done, { once: true });
    image.addEventListener("error", done, { once: true });
    image.src = image.dataset.url;
  }
}

// Whether a key press is meant for something other than the map or list.
export function typing(event) {
  if (event.ctrlKey || event.metaKey || event.altKey) return true;
  return event.composedPath().some((at) => at instanceof Element
    && (at.matches("input, textarea, select, button, a, audio, [contenteditable=true], [role=slider], [role=combobox], [role=listbox], [role=dialog], [role=tab], [data-testid=stDataFrame]")));
}

export async function askJson(url, signal) {
  const answer = await fetch(url, { signal });
  if (!answer.ok) throw new Error(await refusal(answer));
  return answer.json();
}

// Save the M3U playlist of songs, as the server writes it.  Throws an Error with the app's message.
export async function savePlaylist(songs, name = "queue.m3u8") {
  const answer = await fetch("/tonelake/playlist", {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ clips: songs.map((song) => song.clip_id) }),
  });
  if (!answer.ok) throw new Error(await refusal(answer));
  const link = element("a", { href: URL.createObjectURL(await answer.blob()), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

// The app's error message for a failed request.
const refusal = async (answer) => (await answer.json().catch(() => ({}))).error ?? `The app answered with status ${answer.status}.`;

// `request`: a URL, or the promise of a fetch.
export async function askBytes(request, signal) {
  const answer = await (typeof request === "string" ? fetch(request, { signal }) : request);
  if (!answer.ok) throw new Error(await refusal(answer));
  return { buffer: await answer.arrayBuffer(), order: answer.headers.get("X-Order") };
}
