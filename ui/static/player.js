// Shared by the map and the lists of clips: audio playback, labels, requests, and the test for keyboard focus.

let playing = null;

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

// Pause this <audio> when another one starts.
export function joinPlayers(audio) {
  audio.addEventListener("play", () => {
    if (playing && playing !== audio) playing.pause();
    playing = audio;
  });
}

// Play a clip of the lake from its start; `say` receives a message if it cannot be played.
export function play(audio, clip, say) {
  say("");
  if (audio.dataset.clip !== clip) {
    audio.dataset.clip = clip;
    audio.src = audioOf(clip);
  } else audio.currentTime = 0;
  audio.onerror = async () => {
    if (audio.dataset.clip !== clip) return;
    const answer = await fetch(audioOf(clip), { headers: { Range: "bytes=0-99" } }).catch(() => null);
    if (audio.dataset.clip === clip) say(answer ? (await answer.json().catch(() => ({}))).error ?? "This clip cannot be played." : "The app does not answer. Is it still running?");
  };
  audio.play().catch((error) => {
    if (error.name === "NotAllowedError") say("The browser requires a click before it plays audio. Press play.");
  });
}

export const audioOf = (clip) => `/tonelake/audio/${encodeURIComponent(clip)}`;
export const pictureOf = (clip) => `/tonelake/spectrogram/${encodeURIComponent(clip)}`;
export const clock = (seconds) => `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;
export const titleOf = (clip) => clip.title || clip.track;
export const placeOf = (clip) => [clip.artist, clip.album, clock(clip.start_s ?? 0)].filter(Boolean).join(" · ");

// Create an element with text, never markup: names come from untrusted files.
export function element(kind, { text, children = [], ...properties } = {}) {
  const made = Object.assign(document.createElement(kind), properties);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
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

// The app's error message for a failed request.
const refusal = async (answer) => (await answer.json().catch(() => ({}))).error ?? `The app answered with status ${answer.status}.`;

// `request`: a URL, or the promise of a fetch.
export async function askBytes(request, signal) {
  const answer = await (typeof request === "string" ? fetch(request, { signal }) : request);
  if (!answer.ok) throw new Error(await refusal(answer));
  return { buffer: await answer.arrayBuffer(), order: answer.headers.get("X-Order") };
}
