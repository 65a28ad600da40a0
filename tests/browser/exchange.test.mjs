// Tests of exchange.js, answer.js, messages.js and images.js, without a browser.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import test from 'node:test';
import { assembled, failure } from '../../src/ui/page/answer.js';
import { bodyText, curl, keyFields, quoted, repeated } from '../../src/ui/page/exchange.js';
import { spell } from '../../src/ui/page/format.js';
import { folded, images } from '../../src/ui/page/images.js';
import { difference, isConversation, messages, spoken } from '../../src/ui/page/messages.js';

/** What a shell makes of a command, as its arguments. */
function words(command) {
  const script = `curl() { printf '%s\\0' "$@"; }\n${command}`;
  return execFileSync('sh', ['-c', script], { env: { API_KEY: 'k"e y', PATH: process.env.PATH } }).toString().split('\0').slice(0, -1);
}

test('a shell reads a quoted text as one word', () => {
  const texts = ['plain', '', "it's", '$(id)', '`id`', '"', '\\', "'; rm -rf /; '", 'a\nb', '!!', '-o', '*', '~', 'ü', '#x', "'''", '\t'];
  for (const text of texts) {
    assert.deepEqual(words(`curl ${quoted(text)}`), [text], JSON.stringify(text));
  }
  assert.deepEqual(words(`curl ${quoted('a\0b')}`), ['ab']);
});

test('the curl command repeats a request, with a shell variable for the key', () => {
  const fields = [
    ['Host', 'localhost:8888'], ['Authorization', 'Bearer …'], ['x-api-key', '…'], ['Accept-Encoding', 'gzip'], ['Content-Length', '9'],
    ['Content-Type', 'application/json'], ['X-Odd', "it's $HOME `id`"], ['X-Empty', ''], ['Connection', 'keep-alive'], ['Cookie', '…'],
  ];
  const exchange = { method: 'POST', path: "/v1/chat?tag[]=…&q=' \0\ud800", requestFields: fields };
  assert.deepEqual(words(curl(exchange, 8888, '{"a":"it\'s"}')), [
    '--globoff', "http://localhost:8888/v1/chat?tag[]=%E2%80%A6&q='%20%00%EF%BF%BD", '-H', 'Authorization: Bearer k"e y', '-H', 'x-api-key: k"e y', '--compressed',
    '-H', 'Content-Type: application/json', '-H', "X-Odd: it's $HOME `id`", '-H', 'X-Empty;', '--data-raw', '{"a":"it\'s"}',
  ]);
  assert.deepEqual(words(curl({ method: 'GET', path: '/v1/models', requestFields: [] }, 9)), ['http://localhost:9/v1/models']);
  assert.deepEqual(words(curl({ method: 'HEAD', path: '/' }, 9)), ['--head', 'http://localhost:9/']);
  assert.deepEqual(words(curl({ method: 'DELETE', path: '/x' }, 9)), ['-X', 'DELETE', 'http://localhost:9/x']);
  assert.deepEqual(words(curl({ method: 'POST', path: '/x' }, 9)), ['-X', 'POST', 'http://localhost:9/x']);
  assert.deepEqual(words(curl({ method: 'GET', path: '/x' }, 9, 'body')), ['-X', 'GET', 'http://localhost:9/x', '--data-raw', 'body']);
  // An invalid method is quoted too.
  assert.deepEqual(words(curl({ method: "A'; id", path: '/' }, 9)), ['-X', "A'; id", 'http://localhost:9/']);
});

test('a request that is sent again has its fields with another key, and no other secret', () => {
  const requestFields = [['Host', 'localhost:8888'], ['authorization', '…'], ['x-api-key', '…'], ['Accept-Encoding', 'gzip'], ['X-A', 'b'], ['X-Token', '…'], ['Cookie', '…']];
  assert.deepEqual(keyFields({ requestFields }).map(([name]) => name), ['authorization', 'x-api-key']);
  assert.deepEqual(repeated({ requestFields }, 'k'), [['authorization', 'Bearer k'], ['x-api-key', 'k'], ['X-A', 'b']]);
  assert.deepEqual(repeated({ requestFields: [['Authorization', 'Basic …']] }, 'k'), [['Authorization', 'Basic k']]);
  assert.deepEqual(repeated({ requestFields: [['Authorization', '…']] }, 'Basic k'), [['Authorization', 'Basic k']]);
  assert.deepEqual(repeated({ requestFields }, ''), [['X-A', 'b']]);
  assert.deepEqual(repeated({}, 'k'), []);
});

const stream = (events) => events.map((event) => `event: x\ndata: ${typeof event === 'string' ? event : JSON.stringify(event)}\n\n`).join('');

test('a stream is assembled to the same answer as the document', () => {
  const tool = { name: 'lookup', input: '{"q":"a b"}' };
  const contents = [{ text: 'hm', thought: true }, { text: 'Hel' }, { text: 'lo' }, { functionCall: { name: 'lookup', args: { q: 'a b' } } }]
    .map((part, place) => ({ candidates: [{ content: { role: 'model', parts: [part] }, ...(place === 3 && { finishReason: 'STOP' }) }], usageMetadata: {} }));
  const rows = {
    'chat, streamed': [stream([
      { choices: [{ delta: { role: 'assistant', content: '' } }] }, { choices: [{ delta: { reasoning_content: 'hm' } }] },
      { choices: [{ delta: { content: 'Hel' } }] }, { choices: [{ delta: { content: 'lo' } }] },
      { choices: [{ delta: { tool_calls: [{ index: 0, id: 'c', function: { name: 'lookup', arguments: '{"q":' } }] } }] },
      { choices: [{ delta: { tool_calls: [{ index: 0, function: { arguments: '"a b"}' } }] } }] },
      { choices: [{ delta: {}, finish_reason: 'tool_calls' }] }, { choices: [], usage: {} }, '[DONE]',
    ]), { text: 'Hello', reasoning: 'hm', tools: [tool], stop: 'tool_calls' }],
    'chat, at once': [JSON.stringify({
      choices: [{ finish_reason: 'tool_calls', message: { content: 'Hello', reasoning: 'hm', tool_calls: [{ function: { name: 'lookup', arguments: '{"q":"a b"}' } }] } }],
    }), { text: 'Hello', reasoning: 'hm', tools: [tool], stop: 'tool_calls' }],
    'messages, streamed': [stream([
      { type: 'message_start', message: {} }, { type: 'content_block_start', index: 0, content_block: { type: 'thinking', thinking: '' } },
      { type: 'content_block_delta', index: 0, delta: { type: 'thinking_delta', thinking: 'hm' } },
      { type: 'content_block_start', index: 1, content_block: { type: 'text', text: '' } }, { type: 'ping' },
      { type: 'content_block_delta', index: 1, delta: { type: 'text_delta', text: 'Hel' } }, { type: 'content_block_delta', index: 1, delta: { type: 'text_delta', text: 'lo' } },
      { type: 'content_block_start', index: 2, content_block: { type: 'tool_use', name: 'lookup', input: {} } },
      { type: 'content_block_delta', index: 2, delta: { type: 'input_json_delta', partial_json: '{"q":' } },
      { type: 'content_block_delta', index: 2, delta: { type: 'input_json_delta', partial_json: '"a b"}' } },
      { type: 'content_block_stop', index: 2 }, { type: 'message_delta', delta: { stop_reason: 'tool_use' } }, { type: 'message_stop' },
    ]), { text: 'Hello', reasoning: 'hm', tools: [tool], stop: 'tool_use' }],
    'messages, at once': [JSON.stringify({
      type: 'message', stop_reason: 'tool_use', content: [{ type: 'thinking', thinking: 'hm' }, { type: 'text', text: 'Hello' }, { type: 'tool_use', name: 'lookup', input: { q: 'a b' } }],
    }), { text: 'Hello', reasoning: 'hm', tools: [tool], stop: 'tool_use' }],
    'responses, streamed': [stream([
      { type: 'response.created', response: {} }, { type: 'response.reasoning_summary_text.delta', delta: 'hm' },
      { type: 'response.output_text.delta', output_index: 0, delta: 'Hel' }, { type: 'response.output_text.delta', output_index: 0, delta: 'lo' },
      { type: 'response.output_item.added', output_index: 1, item: { type: 'function_call', name: 'lookup' } },
      { type: 'response.function_call_arguments.delta', output_index: 1, delta: '{"q":"a b"}' },
      { type: 'response.completed', response: { status: 'completed' } },
    ]), { text: 'Hello', reasoning: 'hm', tools: [tool], stop: 'completed' }],
    'responses, at once': [JSON.stringify({
      status: 'completed', output: [{ type: 'reasoning', summary: [{ type: 'summary_text', text: 'hm' }] },
        { type: 'message', content: [{ type: 'output_text', text: 'Hello' }] }, { type: 'function_call', name: 'lookup', arguments: '{"q":"a b"}' }],
    }), { text: 'Hello', reasoning: 'hm', tools: [tool], stop: 'completed' }],
    'contents, streamed': [stream(contents), { text: 'Hello', reasoning: 'hm', tools: [tool], stop: 'STOP' }],
    'contents, as a list': [`[${contents.map((each) => JSON.stringify(each)).join(',\r\n')}]`, { text: 'Hello', reasoning: 'hm', tools: [tool], stop: 'STOP' }],
    'contents, as a list without its end': [`[${contents.slice(0, 3).map((each) => JSON.stringify(each)).join(',\r\n')}`, { text: 'Hello', reasoning: 'hm', tools: [], stop: null }],
    'contents, as a list cut in an element': [`[${contents.slice(0, 3).map((each) => JSON.stringify(each)).join(',\r\n')},\r\n{"candid`, { text: 'Hello', reasoning: 'hm', tools: [], stop: null }],
    'contents, at once': [JSON.stringify({
      candidates: [{ finishReason: 'STOP', content: { role: 'model', parts: [{ text: 'hm', thought: true }, { text: 'Hello' }, { functionCall: { name: 'lookup', args: { q: 'a b' } } }] } }],
    }), { text: 'Hello', reasoning: 'hm', tools: [tool], stop: 'STOP' }],
    'cut in the middle': [`${stream([{ choices: [{ delta: { content: 'Hel' } }] }])}data: {"choices":[{"del`, { text: 'Hel', reasoning: '', tools: [], stop: null }],
    'with CRLF': [stream([{ choices: [{ delta: { content: 'x' } }] }]).replaceAll('\n', '\r\n'), { text: 'x', reasoning: '', tools: [], stop: null }],
  };
  for (const [why, [text, expected]] of Object.entries(rows)) assert.deepEqual(assembled(text), expected, why);
  for (const other of ['', 'hello', '{}', '[]', 'null', '7', '{"data":[{"id":"m"}]}', 'data: 7\n\n', 'data: {"type":"other"}\n\n']) {
    assert.equal(assembled(other), null, other);
  }
});

test('text that is not an answer of a model is accepted', () => {
  const odd = [null, 7, 'x', [], {}, [null], { content: 7 }, { delta: null }];
  for (const value of odd) {
    for (const document of [{ choices: value }, { choices: [value] }, { choices: [{ message: value }] }, { output: [value] }, { type: 'message', content: [value] },
      { candidates: value }, { candidates: [value] }, [{ candidates: [] }, value], { candidates: [{ content: { parts: value } }] }, { candidates: [{ content: { parts: [value] } }] },
      { choices: [{ delta: value }] }, { choices: [{ delta: { tool_calls: value } }] }, { choices: [{ delta: { tool_calls: [value] } }] },
      { type: 'content_block_delta', delta: value }, { type: 'content_block_start', content_block: value }, { type: 'response.output_item.added', item: value }]) {
      assembled(JSON.stringify(document));
      assembled(stream([document]));
    }
    difference({ messages: value }, [{ exchange: {}, body: { messages: value } }]);
    difference({ messages: [value] }, [{ exchange: {}, body: { messages: [value] } }]);
    for (const contents of [value, [value], { parts: value }]) difference({ contents, systemInstruction: value }, [{ exchange: {}, body: { contents } }]);
    assembled(JSON.stringify([value]));
  }
  assembled(stream([{ choices: [{ delta: { tool_calls: [{ index: 1e9, function: {} }, { index: -1 }, { index: 'x' }] } }] }]));
});

test('an error of each API has its message', () => {
  const rows = [
    ['OpenAI', JSON.stringify({ error: { message: 'no quota', type: 't' } }), 'no quota'],
    ['Anthropic', JSON.stringify({ type: 'error', error: { type: 't', message: 'overloaded' } }), 'overloaded'],
    ['Gemini, in a list', JSON.stringify([{ error: { code: 400, message: 'bad key' } }]), 'bad key'],
    ['a text', '{"error":"not found"}', 'not found'],
    ['message', '{"message":"no route"}', 'no route'],
    ['detail', '{"detail":"who?"}', 'who?'],
    ['Anthropic, within a stream', stream([{ type: 'ping' }, { type: 'error', error: { message: 'overloaded' } }]), 'overloaded'],
    ['OpenAI, within a stream', stream([{ choices: [] }, { error: { message: 'cut' } }]), 'cut'],
    ['responses, within a stream', stream([{ type: 'response.failed', response: { error: { message: 'failed' } } }]), 'failed'],
    ['an answer', JSON.stringify({ choices: [{ message: { content: 'x' } }], message: 'm' }), null],
    ['nothing', '', null], ['no document', 'null', null], ['a list of nothing', '[null]', null], ['an odd error', '{"error":{"message":7}}', null],
  ];
  for (const [why, text, expected] of rows) assert.equal(failure(text), expected, why);
});

test('a body that is not text, or was not kept, has a note that says so', () => {
  assert.deepEqual(bodyText({ encoding: 'utf8', data: 'ü' }, []), { text: 'ü' });
  assert.deepEqual(bodyText({ encoding: 'base64', data: Buffer.from('ü').toString('base64') }, []), { text: 'ü' });
  assert.deepEqual(bodyText({ encoding: 'base64', data: '/w==' }, []), { note: '1 bytes that are not text' });
  assert.match(bodyText({ encoding: 'omitted', data: '', truncated: true }, [['Content-Encoding', 'gzip']]).note, /not kept: it is compressed with gzip/);
});

test('a request shows what is new since the previous one of its conversation', () => {
  const [system, one, two, three] = [['system', 's'], ['user', 'one'], ['assistant', 'two'], ['user', 'three']].map(([role, content]) => ({ role, content }));
  const earlier = (...bodies) => bodies.map((body, id) => ({ exchange: { id }, body }));
  const check = (why, request, before, expected) => {
    const found = difference(request, earlier(...before));
    const brief = found && { id: found.previous.id, common: found.common, added: found.added.map(({ text }) => text), dropped: found.dropped.length, changed: found.changed.map(({ key }) => key) };
    assert.deepEqual(brief, expected, why);
  };
  check('it goes on', { messages: [system, one, two, three] }, [{ messages: [system, one] }], { id: 0, common: 2, added: ['two', 'three'], dropped: 0, changed: [] });
  check('one that lost nothing counts before one with more in common', { messages: [one, two, three] }, [{ messages: [one, two, one] }, { messages: [one] }], { id: 1, common: 1, added: ['two', 'three'], dropped: 0, changed: [] });
  check('the longest beginning counts', { messages: [one, two, three] }, [{ messages: [one] }, { messages: [one, two] }], { id: 1, common: 2, added: ['three'], dropped: 0, changed: [] });
  check('of equals the latest', { messages: [one, two] }, [{ messages: [one] }, { messages: [one] }], { id: 0, common: 1, added: ['two'], dropped: 0, changed: [] });
  check('another way on', { messages: [one, three] }, [{ messages: [one, two] }], { id: 0, common: 1, added: ['three'], dropped: 1, changed: [] });
  check('instructions alone are no conversation', { messages: [system, one] }, [{ messages: [system, three] }], null);
  check('nothing in common', { messages: [one] }, [{ messages: [three] }], null);
  check('no messages', { model: 'm' }, [{ model: 'm' }], null);
  check('another model', { model: 'b', messages: [one] }, [{ model: 'a', messages: [one] }], { id: 0, common: 1, added: [], dropped: 0, changed: ['model'] });
  const marked = { role: 'user', content: [{ type: 'text', text: 'one', cache_control: { type: 'ephemeral' } }] };
  check('marks for a cache move', { system: 's', messages: [one, two] }, [{ system: 's', messages: [marked] }], { id: 0, common: 2, added: ['two'], dropped: 0, changed: [] });
  const part = ({ role, content }) => ({ role, parts: [{ text: content }] });
  const [more, instructions] = [{ generationConfig: { temperature: 1 } }, { systemInstruction: { parts: [{ text: 's' }] } }];
  check('contents', { ...instructions, contents: [one, two].map(part), ...more }, [{ ...instructions, contents: [part(one)] }], { id: 0, common: 2, added: ['two'], dropped: 0, changed: ['generationConfig'] });
  check('responses', { input: [one, two], instructions: 's' }, [{ input: 'one', instructions: 's' }], { id: 0, common: 2, added: ['two'], dropped: 0, changed: [] });
});

test('a time is rounded before it is split into minutes and seconds', () => {
  for (const [ms, expected] of [[9_990, '9.99 s'], [119_400, '1 m 59 s'], [119_700, '2 m 0 s']]) assert.equal(spell(ms), expected);
});

test('the input of an embedding is no conversation', () => {
  const rows = [['/v1/chat/completions', true], ['/v1/responses', true], ['/v1beta/models/m:streamGenerateContent', true], ['/v1/embeddings', false],
    ['/v1beta/models/m:embedContent', false], ['/v1beta/models/m:batchEmbedContents', false], ['/v1/moderations', false], ['/v1/audio/speech', false]];
  for (const [path, expected] of rows) assert.equal(isConversation(path), expected, path);
});

test('contents are messages with calls, results and media', () => {
  const parts = [{ text: 'see' }, { inlineData: { mimeType: 'image/png', data: PNG } }, { inline_data: { mime_type: 'audio/wav', data: 'UklGRgAA' } },
    { functionCall: { name: 'f', args: { a: 1 } } }, { functionResponse: { name: 'f', response: { b: 2 } } }];
  const said = messages({ contents: { parts }, system_instruction: { parts: [{ text: 's' }] } });
  assert.deepEqual(said.map(spoken).map(({ role, text, images: found }) => ({ role, text, images: found.length })), [
    { role: 'system', text: 's', images: 0 }, { role: 'user', text: 'see\n[image]\n[audio/wav]\n[calls f {"a":1}]\n[result] {"b":2}', images: 1 }]);
  assert.equal(messages({ model: 'm' }), null);
});

test('images are found in the bodies of each API, and their data folded', () => {
  const jpeg = `/9j/${'A'.repeat(100)}`;
  const rows = [
    ['chat', { image_url: { url: `data:image/png;base64,${PNG}` } }, ['image/png']],
    ['messages', { source: { type: 'base64', media_type: 'image/jpeg', data: jpeg } }, ['image/jpeg']],
    ['contents', { inlineData: { data: PNG } }, ['image/png']],
    ['a generated one', { data: [{ b64_json: `UklGRgAAAABXRUJQ${'A'.repeat(60)}` }, { b64_json: `R0lGODlh${'A'.repeat(60)}` }] }, ['image/webp', 'image/gif']],
    ['a picture that could run scripts', { url: `data:image/svg+xml;base64,PHN2Zy${'A'.repeat(60)}` }, []],
    ['a sound', { data: `UklGRgAAAABXQVZF${'A'.repeat(60)}` }, []],
    ['within a text', { text: `xiVBORw0KGgo${'A'.repeat(60)}` }, []],
    ['many', Array(40).fill(PNG), Array(24).fill('image/png')],
  ];
  for (const [why, body, expected] of rows) assert.deepEqual(images(JSON.stringify(body)).map(({ type }) => type), expected, why);
  assert.equal(images(PNG.slice(0, 70))[0].url, `data:image/png;base64,${PNG.slice(0, 68)}`, 'truncated');
  const fold = (text) => folded(text, (bytes) => `${bytes} B`);
  assert.equal(fold(`{"a":"data:image/png;base64,${PNG}","b":1}`), `{"a":"data:image/png;base64,${PNG.slice(0, 12)}… (70 B)","b":1}`);
  assert.equal(fold(`"${PNG}"`), `"${PNG.slice(0, 12)}… (70 B)"`);
  assert.equal(fold(`data:audio/wav;codecs=1;base64,${'A'.repeat(80)}`), 'data:audio/wav;codecs=1;base64,AAAAAAAAAAAA… (60 B)');
  for (const text of ['A'.repeat(500), 'data:text/plain,a', 'data:image/png;base64,AAAA', 'data: {"a":1}']) assert.equal(fold(text), text);
});

/** One pixel. */
const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==';
