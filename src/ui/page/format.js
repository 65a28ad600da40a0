// Times, sizes, tokens and outcomes of a request as texts, the same in the list and in the pane.

const FAILED = ['client_gone', 'origin_cut', 'refused', 'error', 'unknown'];

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

export function clock(at) {
  return new Date(at * 1000).toTimeString().slice(0, 8);
}

export function spell(ms) {
  if (typeof ms !== 'number') return '';
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return ms < 60_000 ? `${(ms / 1000).toFixed(ms < 10_000 ? 2 : 1)} s` : `${Math.floor(ms / 60_000)} m ${Math.round((ms % 60_000) / 1000)} s`;
}

export function size(bytes) {
  if (typeof bytes !== 'number') return '';
  if (bytes < 1000) return `${bytes} B`;
  const [unit, scale] = bytes < 1e6 ? ['kB', 1e3] : bytes < 1e9 ? ['MB', 1e6] : ['GB', 1e9];
  return `${(bytes / scale).toFixed(bytes < scale * 100 ? 1 : 0)} ${unit}`;
}

export function tokens({ input_tokens, output_tokens }) {
  return input_tokens == null && output_tokens == null ? '' : `${input_tokens ?? '?'} → ${output_tokens ?? '?'}`;
}

/** Milliseconds for each token after the first. */
export function pace({ output_tokens, first_event_ms, last_event_ms }) {
  if (!(output_tokens > 1) || !(last_event_ms > first_event_ms)) return '';
  return ((last_event_ms - first_event_ms) / (output_tokens - 1)).toFixed(1);
}
