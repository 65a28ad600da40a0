//! Readiness for the bench's own processes: one epoll, each socket added once and edge-triggered, and a timer with a
//! resolution of microseconds.
//!
//! It costs as little as possible and shares no code with the program's event loop, because that is measured.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

pub struct Poll {
    epoll: OwnedFd,
    timer: OwnedFd,
    events: Vec<Event>,
}

impl Poll {
    pub fn new() -> io::Result<Poll> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        let data = EventData::new_u64(TIMER);
        // Edge-triggered, so the number of expirations need not be read; setting the timer resets it.
        epoll::add(&epoll, &timer, data, EventFlags::IN | EventFlags::ET)?;
        Ok(Poll {
            epoll,
            timer,
            events: Vec::with_capacity(EVENTS_MAX),
        })
    }

    /// Reports `source` as `token` whenever it becomes readable or writable.
    pub fn add(&self, source: impl AsFd, token: usize) -> io::Result<()> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        Ok(epoll::add(
            &self.epoll,
            source,
            EventData::new_u64(token as u64),
            flags,
        )?)
    }

    /// Wakes [`Poll::wait`] at `due`, at once if that is in the past.
    pub fn wake_at(&self, due: Instant) -> io::Result<()> {
        let left = due
            .saturating_duration_since(Instant::now())
            .max(Duration::from_nanos(1));
        let zero = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let value = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: left.subsec_nanos().into(),
        };
        let spec = Itimerspec {
            it_interval: zero,
            it_value: value,
        };
        timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec)?;
        Ok(())
    }

    /// Waits for events, at most `limit`, and stores them in `ready`, without that of the timer.
    pub fn wait(&mut self, ready: &mut Vec<Ready>, limit: Duration) -> io::Result<()> {
        ready.clear();
        let timeout = Timespec {
            tv_sec: limit.as_secs() as i64,
            tv_nsec: limit.subsec_nanos().into(),
        };
        self.events.clear();
        match epoll::wait(
            &self.epoll,
            rustix::buffer::spare_capacity(&mut self.events),
            Some(&timeout),
        ) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let ends = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        let reports = self
            .events
            .iter()
            .map(|event| (event.data.u64(), event.flags));
        ready.extend(
            reports
                .filter(|&(token, _)| token != TIMER)
                .map(|(token, flags)| Ready {
                    token: token as usize,
                    ended: flags.intersects(ends),
                }),
        );
        Ok(())
    }
}

/// An event of a socket.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    pub token: usize,
    /// Whether the peer has closed its direction: the end of the stream follows the bytes.
    pub ended: bool,
}

/// Pins the calling thread, and what it starts, to this core.
pub fn pin(core: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}

/// The cores that this process may use.
pub fn cores() -> Vec<usize> {
    let set = sched_getaffinity(None).unwrap_or_else(|_| CpuSet::new());
    let found: Vec<usize> = (0..CpuSet::MAX_CPU)
        .filter(|&core| set.is_set(core))
        .collect();
    if found.is_empty() { vec![0] } else { found }
}

const TIMER: u64 = u64::MAX;
const EVENTS_MAX: usize = 512;
