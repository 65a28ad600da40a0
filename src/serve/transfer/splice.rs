//! splice(2): from a socket into a pipe, and from the pipe into a socket. Pages move, no bytes are copied.
//!
//! Invariant: the pipe is empty whenever the source is read. So `EAGAIN` from the first half always means that the source has
//! nothing, and from the second that the sink has no room. If a transfer is dropped with bytes in its pipe, the pipe is closed.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};

use super::super::conn::{Stream, WriteErrorKind, WriteStall};
use super::super::deadline::InactivityTimeout;
use super::Moved;

/// See [`transfer`](super::transfer). `None` if the system or one of the streams does not allow it; then nothing was moved.
pub async fn transfer(
    source: &Stream,
    sink: &Stream,
    most: u64,
    inactivity: InactivityTimeout<'_>,
    moved: &mut impl FnMut(u64),
) -> Option<Moved> {
    let (input, output) = (source.plain()?, sink.plain()?);
    let (input_socket, output_socket) = (input.descriptor()?, output.descriptor()?);
    let mut pipe = Pipe::take()?;
    let mut left = most;
    while left > 0 {
        debug_assert_eq!(pipe.holds, 0, "the pipe is empty when the source is read");
        let piece = match pipe.fill(input_socket, left) {
            Ok(0) => return Some(Moved::EndOfFile),
            Ok(piece) => piece,
            Err(Errno::AGAIN) => {
                input.read_blocked();
                return Some(Moved::AllThereIs);
            }
            Err(Errno::INTR) => continue,
            Err(refusal @ (Errno::INVAL | Errno::NOSYS | Errno::PERM)) if left == most => {
                // EINVAL concerns this socket, the others every socket.
                REFUSED.set(refusal != Errno::INVAL);
                return None;
            }
            Err(_) => return Some(Moved::SourceFailed),
        };
        let mut stall = WriteStall::default();
        while pipe.holds > 0 {
            match pipe.drain(output_socket) {
                Ok(count) => {
                    stall.progressed();
                    moved(count);
                }
                Err(Errno::AGAIN) => {
                    output.write_blocked();
                    let waited = match stall.begin_wait(sink, inactivity) {
                        Ok(()) => poll_fn(|context| stall.poll(context, sink, inactivity)).await,
                        late => late,
                    };
                    if let Err(kind) = waited {
                        return Some(Moved::SinkFailed(kind));
                    }
                }
                Err(Errno::INTR) => {}
                Err(error) => return Some(Moved::SinkFailed(WriteErrorKind::Failed(error.kind()))),
            }
        }
        left -= piece;
    }
    Some(Moved::AsAsked)
}

/// A pipe, and how many bytes are in it.
#[derive(Debug)]
struct Pipe {
    ends: Option<(OwnedFd, OwnedFd)>,
    holds: u64,
}

thread_local! {
    static SPARE: RefCell<Vec<(OwnedFd, OwnedFd)>> = const { RefCell::new(Vec::new()) };
    /// The system does not let this process splice.
    static REFUSED: Cell<bool> = const { Cell::new(false) };
}

impl Pipe {
    /// An empty pipe; `None` if there is none to be had.
    fn take() -> Option<Pipe> {
        if REFUSED.get() {
            return None;
        }
        let ends = SPARE.with_borrow_mut(Vec::pop).or_else(|| {
            let ends = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
            // A user's pipes share 64 MiB; when they are used up, a small one works too.
            let _ = fcntl_setpipe_size(&ends.1, PIPE_BYTES);
            Some(ends)
        })?;
        Some(Pipe {
            ends: Some(ends),
            holds: 0,
        })
    }

    fn fill(&mut self, source: impl AsFd, most: u64) -> Result<u64, Errno> {
        let Some((_, input)) = &self.ends else {
            return Err(Errno::BADF);
        };
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(PIPE_BYTES);
        let count = splice(source, None, input, None, most, FLAGS)? as u64;
        self.holds += count;
        Ok(count)
    }

    fn drain(&mut self, sink: impl AsFd) -> Result<u64, Errno> {
        let Some((output, _)) = &self.ends else {
            return Err(Errno::BADF);
        };
        let count = splice(output, None, sink, None, self.holds as usize, FLAGS)? as u64;
        self.holds -= count;
        Ok(count)
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        let Some(ends) = self.ends.take().filter(|_| self.holds == 0) else {
            return;
        };
        // Fails only while the thread ends.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < SPARE_MAX {
                spare.push(ends);
            }
        });
    }
}

/// Without MORE, which would delay the last piece.
const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

/// As haproxy sets it; an unprivileged user may have 1 MiB a pipe (pipe(7)).
const PIPE_BYTES: usize = 256 * 1024;

/// Pipes kept for later, for each thread: 256 KiB of kernel memory each while they are full, hardly any otherwise.
const SPARE_MAX: usize = 4;
