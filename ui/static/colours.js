// Colours for categories and scales, as bytes for the renderer and as CSS for the legend.
//
// At most MOST_COLOURS values have a colour of their own; the others share a grey.  Each list was searched for the largest least
// distance (OKLab) between two of its colours, as seen with and without a colour vision deficiency (protan, deutan, tritan), among
// colours whose contrast to the background of the theme is at least 3:1.

export const MOST_COLOURS = 12;
const LIGHT = [
  "#4284fc", "#720006", "#de4212", "#121e7e", "#065a72", "#6624a8", "#c066c0", "#308a5a", "#54064e", "#7e4800", "#a8005a", "#6660a2",
];
const DARK = [
  "#2a84f6", "#fcea0c", "#c05424", "#5ad2ea", "#a25aae", "#fcb496", "#8afcd2", "#96a2fc", "#188460", "#fc7230", "#b4cc00", "#d284ba",
];
// Part of the colour map "magma": high values are farther from the background.
const LIGHT_SCALE = ["#e75263", "#c83e73", "#9e2f7f", "#721f81", "#440f76", "#180f3d"];
const DARK_SCALE = ["#d8456c", "#f1605d", "#fb8861", "#feb078", "#fed799", "#fcfdbf"];
const OTHER = [140, 140, 140, 150], MISSING = [140, 140, 140, 80];

const bytes = (hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
export const css = ([red, green, blue]) => `rgb(${red} ${green} ${blue})`;
export const otherCss = css(OTHER);

// Whether a background (a CSS colour as browsers compute it) is dark.
export function isDark(colour) {
  const [red = 255, green = 255, blue = 255] = colour.startsWith("#") ? bytes(colour) : (colour.match(/[\d.]+/g) ?? []).map(Number);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue < 128;
}

export const slotColour = (slot, dark) => bytes((dark ? DARK : LIGHT)[slot]);
export const scaleCss = (dark) => `linear-gradient(to right, ${(dark ? DARK_SCALE : LIGHT_SCALE).join(", ")})`;

export function scaleColour(share, dark) {
  const scale = dark ? DARK_SCALE : LIGHT_SCALE, place = Math.min(Math.max(share, 0), 1) * (scale.length - 1);
  const lower = Math.min(Math.floor(place), scale.length - 2), from = bytes(scale[lower]), to = bytes(scale[lower + 1]);
  return from.map((value, i) => Math.round(value + (to[i] - value) * (place - lower)));
}

// RGBA of each code of a legend.  `slots`: the codes that have colours of their own, by the number of the colour.
export function paletteOf(legend, slots, dark) {
  const palette = new Uint8Array(4 * (legend.codes + 1));
  palette.set(MISSING);
  for (let code = 1; code <= legend.codes; code++) palette.set(OTHER, 4 * code);
  if (legend.kind === "scale") {
    for (let code = 1; code <= legend.codes; code++) palette.set([...scaleColour((code - 1) / (legend.codes - 1), dark), 255], 4 * code);
  } else slots.forEach((code, slot) => palette.set([...slotColour(slot, dark), 255], 4 * code));
  return palette;
}
