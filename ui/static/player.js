// What all lists of clips share: their sound, their words, and keys that work unless somebody is typing.

let heard = null;

// What Streamlit's loader calls for a part of the app: one `Part` for each place, told of each rerun, and freed with it.
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

// An <audio> that falls silent when another one begins.
export function joinPlayers(audio) {
  audio.addEventListener("play", () => {
    if (heard && heard !== audio) heard.pause();
    heard = audio;
  });
}

// Play a clip of the lake from its beginning; `say` gets a sentence where it cannot be heard.
export function play(audio, clip, say) {
  say("");
  if (audio.dataset.clip !== clip) {
    audio.dataset.clip = clip;
    audio.src = audioOf(clip);
  } else audio.currentTime = 0;
  audio.onerror = async () => {
    if (audio.dataset.clip !== clip) return;
    const answer = await fetch(audioOf(clip), { headers: { Range: "bytes=0-99" } }).catch(() => null);
    if (audio.dataset.clip === clip) say(answer ? (await answer.json().catch(() => ({}))).error ?? "This clip cannot be played." : "The app does not answer: is it still running?");
  };
  audio.play().catch((error) => {
    if (error.name === "NotAllowedError") say("The browser asks for a click before it plays anything: press play.");
  });
}

export const audioOf = (clip) => `/tonelake/audio/${encodeURIComponent(clip)}`;
export const pictureOf = (clip) => `/tonelake/spectrogram/${encodeURIComponent(clip)}`;
export const clock = (seconds) => `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(1).padStart(4, "0")}`;
export const titleOf = (clip) => clip.title || clip.track;
export const placeOf = (clip) => [clip.artist, clip.album, clock(clip.start_s ?? 0)].filter(Boolean).join(" · ");

// An element with text, never markup: names come out of files that strangers made.
export function element(kind, { text, children = [], ...properties } = {}) {
  const made = Object.assign(document.createElement(kind), properties);
  if (text !== undefined) made.textContent = text;
  made.append(...children);
  return made;
}

// Whether a key press was meant for something else than the map or list.
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

// What the app says of why it does not answer.
const refusal = async (answer) => (await answer.json().catch(() => ({}))).error ?? `The app answered with status ${answer.status}.`;

// `asked`: a URL, or what a fetch has begun.
export async function askBytes(asked, signal) {
  const answer = await (typeof asked === "string" ? fetch(asked, { signal }) : asked);
  if (!answer.ok) throw new Error(await refusal(answer));
  return { buffer: await answer.arrayBuffer(), order: answer.headers.get("X-Order") };
}
