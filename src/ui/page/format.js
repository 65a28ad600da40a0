// Times, sizes, tokens and outcomes of a request as texts, the same in the list and in the pane.

/** The outcomes of requests that failed, whatever their status. */
export const FAILED = ['origin_cut', 'refused', 'error'];

export const OUTCOMES = {
  __proto__: null,
  complete: 'complete', client_gone: 'the client disconnected', origin_cut: 'cut by the target', refused: 'refused by ic',
  error: 'no answer from the target', tunnel: 'tunnel, closed', unknown: 'its end was not seen',
};

export function isFailed(one) {
  return one.status >= 400 || FAILED.includes(one.outcome);
}

/** In milliseconds; of a request in flight until `now`, in Unix seconds. */
export function durationOf(one, now) {
  if (one.duration_ms !== undefined && one.outcome) return one.duration_ms;
  return one.outcome ? null : Math.max(0, (now - one.at) * 1000);
}

export function statusOf(one) {
  // A response with a good status can fail later.
  if (one.status) return one.status < 400 && isFailed(one) ? `${one.status} ×` : String(one.status);
  return one.outcome ? one.outcome === 'client_gone' ? 'left' : one.outcome === 'unknown' ? '?' : 'failed' : '…';
}

const digits = (value, length = 2) => String(value).padStart(length, '0');

/** The local time, of 24 hours, with milliseconds. */
export function clock(at) {
  const time = new Date(at * 1000);
  return `${digits(time.getHours())}:${digits(time.getMinutes())}:${digits(time.getSeconds())}.${digits(time.getMilliseconds(), 3)}`;
}

/** The local date and time. */
export function moment(at) {
  const time = new Date(at * 1000);
  return `${time.getFullYear()}-${digits(time.getMonth() + 1)}-${digits(time.getDate())} ${clock(at)}`;
}

export function spell(ms) {
  if (typeof ms !== 'number') return '';
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s`;
  const seconds = Math.round(ms / 1000);
  return `${Math.floor(seconds / 60)} m ${seconds % 60} s`;
}

export function size(bytes) {
  if (typeof bytes !== 'number') return '';
  if (bytes < 1000) return `${bytes} B`;
  const [unit, scale] = bytes < 1e6 ? ['kB', 1e3] : bytes < 1e9 ? ['MB', 1e6] : ['GB', 1e9];
  return `${(bytes / scale).toFixed(bytes < scale * 100 ? 1 : 0)} ${unit}`;
}

/** A number of tokens in at most four characters: `420`, `8.2k`, `18k`, `1.2M`. */
function amount(number) {
  if (typeof number !== 'number') return '?';
  if (number < 1000) return String(number);
  const [unit, scale] = number < 999_500 ? ['k', 1e3] : ['M', 1e6];
  return `${(number / scale).toFixed(number < scale * 9.95 ? 1 : 0)}${unit}`;
}

export function tokens({ input_tokens, output_tokens }) {
  return input_tokens == null && output_tokens == null ? '' : `${amount(input_tokens)} → ${amount(output_tokens)}`;
}

/** What requests have in sum: `{ turns, failed, left, estimated, unpriced, cost, input_tokens, output_tokens, cached_tokens, duration_ms, response_bytes }`. */
export function sum(requests) {
  const all = { turns: 0, failed: 0, left: 0, estimated: 0, unpriced: 0 };
  for (const one of requests) {
    all.turns += one.turns ?? 1;
    if (isFailed(one)) all.failed++;
    if (one.outcome === 'client_gone') all.left++;
    const cost = one.cost ?? one.estimate;
    if (typeof cost === 'number') all.cost = (all.cost ?? 0) + cost;
    else if (one.model && one.outcome && !isFailed(one)) all.unpriced++;
    if (one.cost == null && typeof one.estimate === 'number') all.estimated++;
    for (const name of SUMMED) if (typeof one[name] === 'number') all[name] = (all[name] ?? 0) + one[name];
  }
  return all;
}

const SUMMED = ['input_tokens', 'output_tokens', 'cached_tokens', 'duration_ms', 'response_bytes'];

/** Tokens, cost and time of a sum: `8.2k → 420, 18k cached, $0.012, 4.1 s`. */
export function sumText(all) {
  return [tokens(all), extraText(all), spell(all.duration_ms)].filter(Boolean).join(', ');
}

/** What a sum has that no column shows: cached tokens and the cost. */
export function extraText(all) {
  return [all.cached_tokens && `${amount(all.cached_tokens)} cached`, costText(all)].filter(Boolean).join(', ');
}

/** The cost of a request or a sum, in US dollars, marked if it is not the target's, or not all of it. */
export function costText({ cost, estimate, estimated, unpriced }) {
  const dollars = cost ?? estimate;
  if (!(dollars > 0)) return '';
  const digits = dollars < 0.995 ? Math.min(12, 1 - Math.floor(Math.log10(dollars))) : 2;
  const mark = unpriced ? 'at least ' : estimated || cost == null ? '≈ ' : '';
  return `${mark}$${digits > 2 ? dollars.toFixed(digits).replace(/0+$/, '') : dollars.toFixed(2)}`;
}

/** Milliseconds for each token after the first. */
export function pace({ output_tokens, first_event_ms, last_event_ms }) {
  if (!(output_tokens > 1) || !(last_event_ms > first_event_ms)) return '';
  return ((last_event_ms - first_event_ms) / (output_tokens - 1)).toFixed(1);
}
