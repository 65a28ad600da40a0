// The text of the filter: words that must occur, `-word` that must not, `body:word` in a recorded body; quotes keep spaces together.

import { bodyText } from './exchange.js';

/** A function that returns whether a request matches a text. */
export function matcher(text) {
  const terms = [...text.toLowerCase().matchAll(/(-?)(body:)?(?:"([^"]*)"?|(\S+))/g)]
    .map(([, not, body, quoted, word]) => ({ isWanted: !not, has: body ? inBodies : inFacts, word: quoted ?? word ?? '' }))
    .filter(({ word }) => word && word !== '-');
  // A body is long, and the list is drawn often.
  const known = new WeakMap();
  return (one) => {
    const last = known.get(one);
    if (last && last.revision === one.revision && last.model === one.model) return last.isMatch;
    const isMatch = terms.every(({ isWanted, has, word }) => has(one, word) === isWanted);
    known.set(one, { revision: one.revision, model: one.model, isMatch });
    return isMatch;
  };
}

function inFacts(one, word) {
  return [one.method, one.path, one.source, one.port, one.model, one.status, one.error, one.message].some((value) => String(value ?? '').toLowerCase().includes(word));
}

function inBodies(one, word) {
  return [['request', one.requestFields], ['response', one.responseFields]].some(([side, fields]) =>
    one.bodies[side] && (bodyText(one.bodies[side], fields).text ?? '').toLowerCase().includes(word));
}
