//! The hub: publishes lines to all subscribers and keeps the recording.
//!
//! Publishing never waits for a subscriber. No task runs while the state is borrowed: a waker only schedules its task.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use slab::Slab;

use super::event::{Event, InstanceInfo, Line};
use super::record::{ByteBudget, OpenBody, RecordedBody, Recording};

/// Where exchanges publish their events and subscribers receive them.
#[derive(Debug, Default)]
pub struct Hub {
    last_exchange_id: Cell<u64>,
    last_connection_id: Cell<u64>,
    state: RefCell<State>,
    /// Limits the bytes of recorded bodies that are not complete yet.
    pub body_budget: Rc<ByteBudget>,
    /// The responses that are being recorded, by the ids of their exchanges.
    responses: RefCell<HashMap<u64, Weak<RefCell<RecordedBody>>>>,
}

#[derive(Debug, Default)]
struct State {
    queues: Slab<Queue>,
    /// Subscriptions since the start.
    subscriptions: u64,
    /// `Some` while recording is on.
    recording: Option<Recording>,
    is_closed: bool,
    /// The task that waits until there are no subscribers.
    waits_until_empty: Option<Waker>,
}

/// The lines that wait for one subscriber.
#[derive(Debug, Default)]
struct Queue {
    /// The hello, the lines kept before the subscription, and the one that ends them; they do not count towards the limits.
    recorded: VecDeque<Line>,
    lines: VecDeque<Line>,
    /// The bytes of `lines`.
    bytes: usize,
    /// Lines dropped since the last line of `lines`.
    lost: u64,
    waker: Option<Waker>,
    /// The only port whose lines are of interest.
    only: Option<u16>,
    /// No lines follow.
    has_ended: bool,
}

/// Whether a recording keeps a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retention {
    /// Kept, as the first line of the exchange with this id.
    ExchangeStart(u64),
    /// Kept while the recording holds the start of the exchange with this id.
    Exchange(u64),
    /// Not kept.
    None,
}

impl Hub {
    /// Whether events of `port` are published: there is a subscriber to it, or recording is on.
    pub fn is_active(&self, port: Option<u16>) -> bool {
        let state = self.state.borrow();
        state.recording.is_some() || state.queues.iter().any(|(_, queue)| queue.wants(port))
    }

    /// Whether bodies are recorded.
    pub fn is_recording(&self) -> bool {
        self.state.borrow().recording.is_some()
    }

    /// Returns a new exchange id, from 1.
    pub fn next_exchange_id(&self) -> u64 {
        next_id(&self.last_exchange_id)
    }

    /// Returns a new id for a client's connection, from 1.
    pub fn next_connection_id(&self) -> u64 {
        next_id(&self.last_connection_id)
    }

    /// Queues a `line` about `port` for its subscribers and records it as `retention` says. Does nothing after [`Hub::close`].
    pub fn publish(&self, port: Option<u16>, retention: Retention, line: &Line) {
        let mut state = self.state.borrow_mut();
        if state.is_closed {
            return;
        }
        if let Some(recording) = &mut state.recording {
            match retention {
                Retention::ExchangeStart(id) => recording.start_exchange(id, port, line.clone()),
                Retention::Exchange(id) => recording.append(id, line.clone()),
                Retention::None => {}
            }
        }
        state.queue(line, |queue| queue.wants(port));
    }

    /// Lets others watch the response of an exchange while it is recorded, until [`Hub::hide`].
    pub fn show(&self, id: u64, response: &OpenBody) {
        let response = Rc::downgrade(response);
        self.responses.borrow_mut().insert(id, response);
    }

    /// The response of an exchange is complete.
    pub fn hide(&self, id: u64) {
        self.responses.borrow_mut().remove(&id);
    }

    /// Returns the response of an exchange while it is recorded; of one that has no response yet, an empty one.
    pub fn open_response(&self, id: u64) -> Option<OpenBody> {
        let responses = self.responses.borrow();
        let response = responses.get(&id).filter(|_| self.is_recording())?;
        response.upgrade()
    }

    /// Publishes that a port is served, or is served differently.
    pub fn announce(&self, instance: &InstanceInfo) {
        if self.is_active(instance.port) {
            let line = Event::Site { instance }.line();
            self.publish(instance.port, Retention::None, &line);
        }
    }

    /// Publishes that `port` is not served any more, which ends the subscriptions to it alone.
    pub fn close_port(&self, port: u16) {
        let line = Event::SiteClosed { port }.line();
        self.publish(Some(port), Retention::None, &line);
        let mut state = self.state.borrow_mut();
        state.queue(&Event::Bye.line(), |queue| queue.only == Some(port));
        for (_, queue) in &mut state.queues {
            queue.has_ended |= queue.only == Some(port);
        }
    }

    /// Switches recording on or off. Off discards what was recorded.
    pub fn set_recording(&self, on: bool) {
        let mut state = self.state.borrow_mut();
        if state.recording.is_some() != on {
            state.recording = on.then(Recording::default);
            state.queue(&Event::Recording { on }.line(), |_| true);
        }
    }

    /// Adds a subscriber. `hello` returns its first line, given whether recording is on; the recorded lines follow.
    ///
    /// Fails when there are too many subscribers or the hub is closed, with the two lines that say so.
    pub fn subscribe(
        self: &Rc<Self>,
        hello: impl FnOnce(bool) -> Line,
    ) -> Result<Subscriber, [Line; 2]> {
        let mut state = self.state.borrow_mut();
        let hello = hello(state.recording.is_some());
        if state.is_closed {
            return Err([hello, Event::Bye.line()]);
        }
        if state.queues.len() >= SUBSCRIBERS_MAX {
            let listeners = SUBSCRIBERS_MAX;
            return Err([hello, Event::Full { listeners }.line()]);
        }
        let queue = Queue::new(hello, state.recording.as_ref(), None);
        let key = state.queues.insert(queue);
        state.subscriptions += 1;
        Ok(Subscriber {
            hub: Rc::clone(self),
            key,
        })
    }

    /// Returns the number of subscriptions so far if recording is on without a subscriber, for
    /// [`Hub::stop_unattended_recording`].
    pub fn unattended_recording(&self) -> Option<u64> {
        let state = self.state.borrow();
        (state.recording.is_some() && state.queues.is_empty()).then_some(state.subscriptions)
    }

    /// Switches recording off if it has been without a subscriber since `subscriptions` was returned.
    pub fn stop_unattended_recording(&self, subscriptions: u64) {
        if self.unattended_recording() == Some(subscriptions) {
            self.set_recording(false);
        }
    }

    /// Publishes the last line. Each subscriber ends after it.
    pub fn close(&self) {
        let mut state = self.state.borrow_mut();
        state.is_closed = true;
        state.queue(&Event::Bye.line(), |_| true);
    }

    /// Waits until there are no subscribers.
    pub async fn wait_until_empty(&self) {
        poll_fn(|context| {
            let mut state = self.state.borrow_mut();
            if state.queues.is_empty() {
                return Poll::Ready(());
            }
            state.waits_until_empty = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

fn next_id(last: &Cell<u64>) -> u64 {
    last.set(last.get() + 1);
    last.get()
}

impl State {
    /// Queues `line` where `is_wanted` and no last line is queued.
    fn queue(&mut self, line: &Line, is_wanted: impl Fn(&Queue) -> bool) {
        for (_, queue) in &mut self.queues {
            if !queue.has_ended && is_wanted(queue) {
                queue.push(line);
            }
        }
    }
}

impl Queue {
    /// One that begins with `hello` and what is recorded of `only`.
    fn new(hello: Line, recording: Option<&Recording>, only: Option<u16>) -> Queue {
        let recorded = recording.into_iter();
        let recorded = recorded
            .flat_map(|recording| recording.lines(only))
            .cloned();
        let lines = std::iter::once(hello).chain(recorded);
        Queue {
            recorded: lines.chain([Event::Live.line()]).collect(),
            only,
            ..Queue::default()
        }
    }

    /// Whether lines about `port` are of interest.
    fn wants(&self, port: Option<u16>) -> bool {
        self.only.is_none() || self.only == port
    }

    fn push(&mut self, line: &Line) {
        if self.lines.len() >= QUEUE_LINES_MAX || self.bytes + line.len() > QUEUE_BYTES_MAX {
            self.lost += 1;
            return;
        }
        self.push_lost();
        self.bytes += line.len();
        self.lines.push_back(line.clone());
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Queues the event that counts the dropped lines, if there are any.
    fn push_lost(&mut self) {
        let count = std::mem::take(&mut self.lost);
        if count > 0 {
            let line = Event::Lost { count }.line();
            self.bytes += line.len();
            self.lines.push_back(line);
        }
    }

    fn pop(&mut self) -> Option<Line> {
        if let Some(line) = self.recorded.pop_front() {
            return Some(line);
        }
        if self.lines.is_empty() {
            self.push_lost();
        }
        let line = self.lines.pop_front()?;
        self.bytes -= line.len();
        Some(line)
    }
}

/// A subscription; it ends when this is dropped.
#[derive(Debug)]
pub struct Subscriber {
    hub: Rc<Hub>,
    key: usize,
}

impl Subscriber {
    /// From now on only lines about `port` are queued, after `hello` and what is recorded of it; those that are queued are dropped.
    /// Without a `hello` the port is not served, and the last line follows.
    pub fn select(&self, port: u16, hello: Option<Line>) {
        let has_ended = hello.is_none();
        let first = hello.unwrap_or_else(|| Event::Bye.line());
        self.replace_queue(|recording| match has_ended {
            true => Queue {
                recorded: [first].into(),
                has_ended,
                ..Queue::default()
            },
            false => Queue::new(first, recording, Some(port)),
        });
    }

    /// No lines follow; those that are queued are dropped.
    pub fn end(&self) {
        self.replace_queue(|_| Queue {
            has_ended: true,
            ..Queue::default()
        });
    }

    fn replace_queue(&self, new: impl FnOnce(Option<&Recording>) -> Queue) {
        let mut state = self.hub.state.borrow_mut();
        let State {
            queues, recording, ..
        } = &mut *state;
        let Some(queue) = queues.get_mut(self.key) else {
            return;
        };
        let waker = queue.waker.take();
        *queue = new(recording.as_ref());
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Waits for lines and appends those that are queued to `out`, about [`BATCH_BYTES`] at a time. Returns `false` when the
    /// last line has been taken.
    pub async fn receive(&self, out: &mut Vec<u8>) -> bool {
        poll_fn(|context| self.poll_receive(context, out)).await
    }

    fn poll_receive(&self, context: &mut Context<'_>, out: &mut Vec<u8>) -> Poll<bool> {
        let mut state = self.hub.state.borrow_mut();
        let is_closed = state.is_closed;
        let Some(queue) = state.queues.get_mut(self.key) else {
            return Poll::Ready(false);
        };
        while out.len() < BATCH_BYTES {
            match queue.pop() {
                Some(line) => out.extend_from_slice(line.as_bytes()),
                None => break,
            }
        }
        if !out.is_empty() {
            return Poll::Ready(true);
        }
        if is_closed || queue.has_ended {
            return Poll::Ready(false);
        }
        queue.waker = Some(context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let mut state = self.hub.state.borrow_mut();
        let queue = state.queues.try_remove(self.key);
        let waker = state.waits_until_empty.take();
        drop(state);
        // Not while the state is borrowed: dropping the last waker of a task drops the task, which may use the hub.
        drop(queue);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Room for a page, a terminal and a few more; each costs a queue.
const SUBSCRIBERS_MAX: usize = 8;

/// Limits of the lines that wait for one subscriber.
const QUEUE_LINES_MAX: usize = 1024;
const QUEUE_BYTES_MAX: usize = 8 << 20;

/// The bytes of one write to a subscriber.
const BATCH_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const LIVE: &str = "{\"event\":\"live\"}";

    fn hub() -> Rc<Hub> {
        Rc::new(Hub::default())
    }

    fn subscribe(hub: &Rc<Hub>) -> Subscriber {
        hub.subscribe(|on| format!("hello {on}\n").into())
            .expect("there is room")
    }

    /// The queued lines.
    fn queued(subscriber: &Subscriber) -> Vec<String> {
        let mut context = Context::from_waker(Waker::noop());
        let mut lines = Vec::new();
        let mut out = Vec::new();
        while subscriber.poll_receive(&mut context, &mut out) == Poll::Ready(true) {
            let text = String::from_utf8(std::mem::take(&mut out)).expect("lines are text");
            lines.extend(text.lines().map(str::to_owned));
        }
        lines
    }

    #[test]
    fn a_hub_is_active_while_it_has_a_subscriber_or_records() {
        let hub = hub();
        assert!(!hub.is_active(None));
        let subscriber = subscribe(&hub);
        assert!(hub.is_active(None) && !hub.is_recording());
        hub.set_recording(true);
        drop(subscriber);
        assert!(hub.is_active(None) && hub.is_recording());
        hub.set_recording(false);
        assert!(!hub.is_active(None));
    }

    #[test]
    fn a_slow_subscriber_loses_lines_and_gets_their_number() {
        let hub = hub();
        let (slow, quick) = (subscribe(&hub), subscribe(&hub));
        for number in 0..1030 {
            hub.publish(None, Retention::None, &format!("{number}\n").into());
            queued(&quick);
        }
        let lines = queued(&slow);
        assert_eq!(lines.len(), 1027);
        assert_eq!(lines[1025], "1023");
        assert_eq!(lines[1026], "{\"event\":\"lost\",\"count\":6}");
        hub.publish(None, Retention::None, &"x".repeat(8 << 20).into());
        hub.publish(None, Retention::None, &"y\n".into());
        let mut out = Vec::new();
        let mut context = Context::from_waker(Waker::noop());
        assert!(slow.poll_receive(&mut context, &mut out).is_ready());
        assert_eq!(out.len(), 8 << 20, "large lines count by their bytes");
        out.clear();
        hub.publish(None, Retention::None, &"z\n".into());
        assert_eq!(queued(&slow), ["{\"event\":\"lost\",\"count\":1}", "z"]);
    }

    #[test]
    fn a_later_subscriber_gets_the_recorded_lines() {
        let hub = hub();
        hub.publish(None, Retention::ExchangeStart(1), &"before\n".into());
        hub.set_recording(true);
        hub.publish(None, Retention::Exchange(1), &"started before\n".into());
        hub.publish(None, Retention::ExchangeStart(2), &"a\n".into());
        hub.publish(None, Retention::None, &"not kept\n".into());
        let subscriber = subscribe(&hub);
        hub.publish(None, Retention::Exchange(2), &"b\n".into());
        assert_eq!(queued(&subscriber), ["hello true", "a", LIVE, "b"]);
        hub.set_recording(true);
        hub.set_recording(false);
        hub.set_recording(true);
        let switched =
            ["false", "true"].map(|on| format!("{{\"event\":\"recording\",\"on\":{on}}}"));
        assert_eq!(queued(&subscriber), switched, "only changes are published");
        assert_eq!(
            queued(&subscribe(&hub)),
            ["hello true", LIVE],
            "off discards the recording"
        );
    }

    #[test]
    fn a_recording_without_subscribers_is_stopped() {
        let hub = hub();
        let first = subscribe(&hub);
        assert_eq!(hub.unattended_recording(), None);
        hub.set_recording(true);
        assert_eq!(hub.unattended_recording(), None);
        drop(first);
        let before = hub.unattended_recording().expect("no subscriber");
        drop(subscribe(&hub));
        hub.stop_unattended_recording(before);
        assert!(hub.is_recording(), "there was a subscriber in between");
        let before = hub.unattended_recording().expect("no subscriber");
        hub.stop_unattended_recording(before);
        assert!(!hub.is_active(None));
    }

    #[test]
    fn subscribers_are_limited_and_refused_after_the_end() {
        let hub = hub();
        let mut subscribers: Vec<Subscriber> =
            (0..SUBSCRIBERS_MAX).map(|_| subscribe(&hub)).collect();
        let refused = |hub: &Rc<Hub>| match hub.subscribe(|_| "hello\n".into()) {
            Ok(_) => panic!("there is no room"),
            Err(lines) => lines.map(|line| line.to_string()).concat(),
        };
        assert_eq!(
            refused(&hub),
            "hello\n{\"event\":\"full\",\"listeners\":8}\n"
        );
        subscribers.pop();
        subscribers.push(subscribe(&hub));
        hub.close();
        for subscriber in &subscribers {
            let expected = ["hello false", LIVE, "{\"event\":\"bye\"}"];
            assert_eq!(queued(subscriber), expected);
        }
        assert_eq!(refused(&hub), "hello\n{\"event\":\"bye\"}\n");
    }
}
