//! Ports, and ranges of them: a port is never 0, a range never empty.

use std::fmt;
use std::num::NonZeroU16;
use std::str::FromStr;

use serde::Serialize;

/// A TCP port, 1–65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Port(NonZeroU16);

impl Port {
    /// The port as a number.
    pub fn get(self) -> u16 {
        self.0.get()
    }

    /// Whether the `fetch` of browsers and of node refuses to connect to this port, as the Fetch standard says.
    pub fn is_bad_for_fetch(self) -> bool {
        FETCH_BAD_PORTS.binary_search(&self.get()).is_ok()
    }
}

/// The bad ports of the Fetch standard (<https://fetch.spec.whatwg.org/#port-blocking>), in order, without 0.
pub(super) const FETCH_BAD_PORTS: [u16; 82] = [
    1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102,
    103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465,
    512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993,
    995, 1719, 1720, 1723, 2049, 3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668,
    6669, 6679, 6697, 10080,
];

impl TryFrom<u16> for Port {
    type Error = NotAPort;

    fn try_from(number: u16) -> Result<Port, NotAPort> {
        NonZeroU16::new(number).map(Port).ok_or(NotAPort)
    }
}

impl FromStr for Port {
    type Err = NotAPort;

    /// ASCII digits, nothing else: `u16::from_str` would take `+80` too.
    fn from_str(text: &str) -> Result<Port, NotAPort> {
        if !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NotAPort);
        }
        text.parse().map(Port).map_err(|_| NotAPort)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Something is not a port number from 1 to 65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAPort;

impl fmt::Display for NotAPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a port is a number from 1 to 65535")
    }
}

impl std::error::Error for NotAPort {}

/// The ports from a first to a last one, both included; never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
pub struct PortRange {
    start: Port,
    end: Port,
}

impl PortRange {
    /// 8888–9999.
    pub const DEFAULT: PortRange = PortRange {
        start: Port(NonZeroU16::new(8888).expect("8888 is not 0")),
        end: Port(NonZeroU16::new(9999).expect("9999 is not 0")),
    };

    /// The ports from `start` to `end`.
    ///
    /// # Errors
    ///
    /// `start` is greater than `end`.
    pub fn new(start: Port, end: Port) -> Result<PortRange, EmptyRange> {
        if start <= end {
            Ok(PortRange { start, end })
        } else {
            Err(EmptyRange { start, end })
        }
    }

    /// The first port.
    pub fn start(self) -> Port {
        self.start
    }

    /// The last port.
    pub fn end(self) -> Port {
        self.end
    }

    /// How many ports there are, 1–65535.
    #[expect(clippy::len_without_is_empty, reason = "a range is never empty")]
    pub fn len(self) -> u32 {
        u32::from(self.end.get() - self.start.get()) + 1
    }

    /// Whether `port` is one of them.
    pub fn contains(self, port: Port) -> bool {
        (self.start..=self.end).contains(&port)
    }

    /// All of them, upwards.
    pub fn iter(self) -> impl Iterator<Item = Port> {
        (self.start.get()..=self.end.get()).filter_map(|number| Port::try_from(number).ok())
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.start, self.end)
    }
}

/// A range's start lies behind its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmptyRange {
    /// The port that was to be the first.
    pub start: Port,
    /// The port that was to be the last.
    pub end: Port,
}

impl fmt::Display for EmptyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let EmptyRange { start, end } = self;
        write!(f, "a range from {start} to {end} has no port in it")
    }
}

impl std::error::Error for EmptyRange {}
