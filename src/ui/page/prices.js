// What requests cost, from the prices that `ic ui` was given.

/** By model: the prices of a token of input, output and cached input, in US dollars; null if unknown. */
let models = new Map();

export function setPrices(prices) {
  models = new Map(Object.entries(prices));
}

/** What a request costs by its tokens, in US dollars; undefined if its tokens or their prices are not known. */
export function estimate({ model, input_tokens, output_tokens, cached_tokens }) {
  const prices = pricesOf(String(model));
  if (!prices || (input_tokens == null && output_tokens == null)) return undefined;
  const [input, output, cached] = prices;
  const parts = [[input_tokens == null ? null : input_tokens - (cached_tokens ?? 0), input], [cached_tokens ?? 0, cached ?? input], [output_tokens, output]];
  let cost = 0;
  for (const [number, price] of parts) {
    // An embedding has no output, and no price of it.
    if (number === 0 || (number == null && !price)) continue;
    if (typeof number !== 'number' || price == null) return undefined;
    cost += number * price;
  }
  return cost;
}

/** Of `openrouter/openai/gpt-4o` the prices of the longest end that has some. */
function pricesOf(model) {
  for (let name = model; ; name = name.slice(name.indexOf('/') + 1)) {
    if (models.has(name)) return models.get(name);
    if (!name.includes('/')) return undefined;
  }
}
