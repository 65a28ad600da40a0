// The kept requests, made from the lines of the interceptors' feeds. Nothing is drawn here.

import { isFailed } from './format.js';
import { estimate } from './prices.js';

/** Bounds the memory of the tab. */
export const EXCHANGES_MAX = 2000;
/** The size of all kept bodies, in characters. */
const BODIES_MAX = 48 << 20;

export class Exchanges {
  /** `isOpen(one)`: it is never forgotten; `onFeeds()`: interceptors or their recording changed; `onFailed(one)`: a request ended so. */
  constructor({ isOpen, onFeeds, onFailed }) {
    Object.assign(this, { isOpen, onFeeds, onFailed });
    /** The newest first. */
    this.all = [];
    this.byKey = new Map();
    this.feeds = new Map();
    this.bodies = 0;
    this.lost = 0;
    /** How many requests have come. */
    this.seen = 0;
  }

  receive({ pid, event }) {
    if (typeof event !== 'object' || !event) return;
    const feed = this.feeds.get(pid);
    switch (event.event) {
      case 'hello':
        this.feeds.set(pid, { ...event, pid, name: event.sites ? 'all projects' : nameOf(event), sites: event.sites && new Map(event.sites.map((site) => [site.port, site])) });
        this.abandon(pid);
        this.onFeeds();
        break;
      case 'site':
        feed?.sites?.set(event.port, event);
        this.onFeeds();
        break;
      case 'site_closed':
        feed?.sites?.delete(event.port);
        this.onFeeds();
        break;
      case 'recording':
        if (feed) feed.recording = event.on;
        this.onFeeds();
        break;
      case 'lost':
        this.lost += event.count;
        break;
      case 'full':
        if (feed) feed.isFull = true;
        break;
      case 'closed':
        this.abandon(pid);
        this.feeds.delete(pid);
        this.onFeeds();
        break;
      default:
        if (feed && event.id !== undefined) this.note(feed, event);
    }
  }

  /** Starts again after a lost connection: requests in flight may have ended since. */
  reset() {
    for (const pid of this.feeds.keys()) this.abandon(pid);
    this.feeds.clear();
    this.onFeeds();
  }

  abandon(pid) {
    for (const one of this.all) if (one.pid === pid && !one.outcome) this.revise(one, { outcome: 'unknown', duration_ms: null });
  }

  note(feed, event) {
    const key = `${feed.pid}-${event.id}`;
    let one = this.byKey.get(key);
    if (!one) {
      // Its start was missed.
      if (event.event !== 'start') return;
      one = this.add(key, feed, event);
    }
    // It is sent again to a page that connects again.
    const isOver = one.outcome && one.outcome !== 'unknown';
    switch (event.event) {
      case 'start': {
        if (isOver) return;
        const { at, connection, client, method, path, version, fields, length, added } = event;
        this.revise(one, { at, connection, client, method, path, version, requestFields: fields, requestLength: length, added, outcome: null });
        break;
      }
      case 'head':
        if (isOver) return;
        this.revise(one, { status: event.status, reason: event.reason, responseFields: event.fields, ttfb_ms: event.ttfb_ms, model: event.model ?? one.model });
        break;
      case 'progress':
        Object.assign(one, { request_bytes: event.request_bytes, response_bytes: event.response_bytes, events: event.events, model: event.model ?? one.model });
        break;
      case 'body':
        this.keep(one, event);
        break;
      case 'end': {
        if (isOver) return;
        const { event: _, id, at, ...facts } = event;
        this.revise(one, { ...facts, estimate: estimate(facts), endedAt: at });
        if (isFailed(one)) this.onFailed(one);
      }
    }
  }

  add(key, feed, { id, port, at }) {
    const site = feed.sites?.get(port) ?? feed;
    const one = { key, pid: feed.pid, port: site.port, source: nameOf(site), sourcePath: site.path, target: site.target ?? feed.target, id, order: ++this.seen, bodies: {}, revision: 0 };
    this.byKey.set(key, one);
    // Lines of several interceptors are mixed, and recorded ones arrive late.
    let place = 0;
    while (place < this.all.length && this.all[place].at > at) place++;
    this.all.splice(place, 0, one);
    if (this.all.length > EXCHANGES_MAX) {
      const oldest = this.all.findLastIndex((other) => !this.isOpen(other));
      this.forget(...this.all.splice(oldest, 1));
    }
    return one;
  }

  revise(one, facts) {
    Object.assign(one, facts);
    one.revision++;
  }

  keep(one, body) {
    one.revision++;
    this.put(one, body);
  }

  /** Keeps what has come so far of a response. */
  grow(one, body) {
    const known = one.bodies.response;
    if (one.outcome || (known && !known.isPart)) return;
    this.put(one, { ...body, isPart: true });
  }

  put(one, { side, encoding, data, truncated, total, isPart }) {
    this.bodies += data.length - (one.bodies[side]?.data.length ?? 0);
    one.bodies[side] = { encoding, data, truncated, total, isPart };
    for (let place = this.all.length - 1; this.bodies > BODIES_MAX && place >= 0; place--) {
      if (!this.isOpen(this.all[place])) this.dropBodies(this.all[place]);
    }
  }

  dropBodies(one) {
    for (const { data } of Object.values(one.bodies)) this.bodies -= data.length;
    one.bodies = {};
  }

  forget(one) {
    this.dropBodies(one);
    this.byKey.delete(one.key);
  }

  /** Forgets all but the open one. */
  clear() {
    for (const one of this.all) if (!this.isOpen(one)) this.forget(one);
    this.all = this.all.filter((one) => this.isOpen(one));
    this.lost = 0;
  }

  /** What runs now, by port: `{ project, name, port, pid, recording }`. */
  sites() {
    const all = [...this.feeds.values()].flatMap((feed) => [...(feed.sites?.values() ?? [feed])].map((site) => (
      { project: projectOf(nameOf(site), site.port), name: nameOf(site), port: site.port, pid: feed.pid, recording: feed.recording })));
    return all.sort((a, b) => a.port - b.port);
  }

  /** The requests of the same kind before this one, the latest first. */
  earlierThan(one) {
    return this.all.filter((other) => other.pid === one.pid && other.port === one.port && other.path === one.path
      && (other.at < one.at || (other.at === one.at && other.id < one.id)));
  }
}

/** What an interceptor, or one port of a process that serves many, is called. */
export function nameOf({ project, instance_id }) {
  return project ?? instance_id;
}

/** A project in the filter and in the address: it stays the same when its interceptor is restarted. */
export function projectOf(name, port) {
  return `${name}:${port}`;
}
