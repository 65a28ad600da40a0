// What is shown, in the address: `#/requests/shop:8888/4242-7?show=errors&q=gpt` is a view, words, and parameters.

const decoded = (text) => {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
};

/** The parts of the address, each as it was given to `write`. */
export function read() {
  const [, path, query] = location.hash.match(/^#\/([^?]*)\??(.*)$/s) ?? ['', '', ''];
  const [view, ...words] = path.split('/').map(decoded);
  return { view, words, parameters: Object.fromEntries(new URLSearchParams(query)) };
}

/** The address of a state; parameters without a value are left out. */
export function hashOf({ view, words, parameters }) {
  const path = [view, ...words].map((word) => encodeURIComponent(String(word).toWellFormed())).join('/').replaceAll('%3A', ':');
  const query = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value)).toString();
  return `#/${path}${query && `?${query}`}`;
}

let timer;
let latest;

/** The plain address is that of the first view. */
const isShown = () => latest === (location.hash || '#/projects');

function replace() {
  clearTimeout(timer);
  timer = undefined;
  if (!isShown()) history.replaceState(null, '', latest);
}

// What waits belongs to the address that the user left.
addEventListener('popstate', () => (clearTimeout(timer), timer = undefined));

/**
 * Shows a state in the address. `isStep`: Back leads to the state before it; otherwise it takes that one's place, a moment
 * later, because browsers limit how often that happens.
 */
export function write(state, isStep) {
  if (isStep) {
    if (timer) replace();
    latest = hashOf(state);
    if (!isShown()) history.pushState(null, '', latest);
  } else {
    latest = hashOf(state);
    timer ??= setTimeout(replace, 200);
  }
}
