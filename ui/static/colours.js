// Colours for categories and scales, as bytes for the renderer and as CSS for the legend.

const MISSING = [150, 150, 150, 110];
// Chosen to be distinguishable on white and on black, adjacent entries most of all.
const FIRST = [
  "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#e08214", "#8073ac", "#1b9e77", "#d95f8d", "#7f9f2f",
  "#9c6b30", "#5e9bd1", "#c44e52", "#55a868", "#b8860b", "#3fb8af", "#8c564b", "#f4a582", "#6a51a3", "#35978f", "#de77ae",
  "#999933", "#5d6d7e",
];
// Both ends are visible on light and dark backgrounds: blue, green, yellow, red.
const SCALE = [[59, 76, 192], [68, 157, 196], [94, 186, 125], [222, 199, 76], [229, 124, 62], [180, 33, 60]];

export function categoryColour(index) {
  if (index < FIRST.length) return [1, 3, 5].map((i) => parseInt(FIRST[index].slice(i, i + 2), 16));
  const hue = (index * 137.508) % 360, light = 42 + 16 * ((index * 0.7548) % 1), strong = 45 + 25 * ((index * 0.5698) % 1);
  const a = strong / 100 * Math.min(light / 100, 1 - light / 100);
  return [0, 8, 4].map((n) => {
    const k = (n + hue / 30) % 12;
    return Math.round(255 * (light / 100 - a * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  });
}

export function scaleColour(share) {
  const place = Math.min(Math.max(share, 0), 1) * (SCALE.length - 1), lower = Math.min(Math.floor(place), SCALE.length - 2);
  return SCALE[lower].map((value, i) => Math.round(value + (SCALE[lower + 1][i] - value) * (place - lower)));
}

export function paletteOf(legend) {
  const count = legend.kind === "scale" ? 256 : legend.names.length;
  const palette = new Uint8Array(4 * (count + 1));
  palette.set(MISSING);
  for (let i = 0; i < count; i++) {
    palette.set([...(legend.kind === "scale" ? scaleColour(i / 255) : categoryColour(i)), 255], 4 * (i + 1));
  }
  return palette;
}

export const css = ([red, green, blue]) => `rgb(${red} ${green} ${blue})`;
export const scaleCss = () => `linear-gradient(to right, ${SCALE.map(css).join(", ")})`;
