// The images in a recorded body. APIs have them as data URLs or as base64 alone, so they are known by how their data begins.

/** The data URLs of any kind and the images in a text. The shortest image has more characters than this. */
const MEDIA = /(data:[\w.+-]+\/[\w.+-]+(?:;[\w=.+-]+)*;base64,|(?<![A-Za-z0-9+/])(?=iVBORw0KGgo|\/9j\/|R0lGOD|UklGR.{6}XRUJQ))([A-Za-z0-9+/]{40,}={0,2})/g;

/** Kinds that a browser shows without running or loading anything. */
const KINDS = [[/^iVBORw0KGgo/, 'image/png'], [/^\/9j\//, 'image/jpeg'], [/^R0lGOD/, 'image/gif'], [/^UklGR.{6}XRUJQ/, 'image/webp']];

/** More are not shown. */
const IMAGES_MAX = 24;

/** The images in a text, as `{ type, url, bytes }`. */
export function images(text) {
  const found = [];
  for (const [, , data] of text.matchAll(MEDIA)) {
    const [, type] = KINDS.find(([begins]) => begins.test(data)) ?? [];
    // Truncated data need not have whole groups of four.
    if (type) found.push({ type, url: `data:${type};base64,${data.slice(0, data.length - (data.length % 4))}`, bytes: bytesOf(data) });
    if (found.length === IMAGES_MAX) break;
  }
  return found;
}

/** A text with only the beginnings of its images and data URLs; `spell(bytes)` returns what stands for the rest. */
export function folded(text, spell) {
  return text.replace(MEDIA, (_, prefix, data) => `${prefix}${data.slice(0, 12)}… (${spell(bytesOf(data))})`);
}

const bytesOf = (data) => Math.floor(data.replace(/=+$/, '').length * 0.75);
