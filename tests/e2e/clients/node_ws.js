// `ws`, the WebSocket library of most programs for node.
//
// Usage: node_ws.js SCENE ws (JSON; see ../table.py)
'use strict';

const assert = require('node:assert/strict');
const { once } = require('node:events');
const { WebSocket } = require('ws');
const { FORGED, expectIdentity, noise, run } = require('./cases.js');

const FRAME_BYTES = 8 << 20;

class Messages {
  constructor(scene) {
    this.url = `${scene.through.replace('http', 'ws')}/v1/realtime?model=m`;
  }

  async connect(name, protocols, perMessageDeflate) {
    const headers = { 'x-case': name, ...FORGED };
    const socket = new WebSocket(this.url, protocols, { headers, perMessageDeflate });
    await once(socket, 'open');
    return socket;
  }
}

async function comesBack(socket, message) {
  const answer = once(socket, 'message');
  socket.send(message);
  const [data, isBinary] = await answer;
  assert.equal(isBinary, Buffer.isBuffer(message));
  assert.ok(data.equals(Buffer.from(message)), 'another message than the one that was sent');
}

async function websocket(scene, client, name) {
  const socket = await client.connect(name, ['chat.v1', 'chat.v2'], false);
  assert.equal(socket.protocol, 'chat.v2');
  for (const message of ['text, and äöü', Buffer.from([0, 255]), '', noise(FRAME_BYTES)]) {
    await comesBack(socket, message);
  }
  // The target closes, with its own code and reason.
  const closed = once(socket, 'close');
  socket.send('close 4001');
  const [code, reason] = await closed;
  assert.deepEqual([code, reason.toString()], [4001, 'as asked']);
}

async function deflate(scene, client, name) {
  const socket = await client.connect(name, [], true);
  assert.match(socket.extensions, /permessage-deflate/);
  for (const message of ['much of the same '.repeat(5000), noise(FRAME_BYTES), 'short']) {
    await comesBack(socket, message);
  }
  socket.close();
}

async function identity(scene, client, name) {
  const socket = await client.connect(name, []);
  await comesBack(socket, 'here');
  await expectIdentity(scene, name);
  socket.close();
}

// Without a close frame, like a killed program.
async function leavesMidway(scene, client, name) {
  const socket = await client.connect(name, []);
  await comesBack(socket, 'here');
  socket.terminate();
  await scene.ended(name, 'gone');
}

const rows = { websocket, deflate, identity, 'leaves midway': leavesMidway };
run((scene) => new Messages(scene), rows, 'the client supports only WebSocket');
