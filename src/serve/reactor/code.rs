//! What a quiet process lets go: the pages of its own code.
//!
//! Most of the program runs once, at the start, and the kernel maps 64 KiB around each page that is touched: two and a half MiB
//! that nobody needs while clients are silent. Let go, they count as the process's no more, and are the first that the system
//! takes for something else. Until then what is needed again is mapped again in some hundredths of a millisecond; afterwards it is
//! read from the disk. Decided here: what can go. Not decided here: when.
//!
//! This is the one place with unsafe code. It would be wrong for a page that differs from the file that it was mapped from, since
//! such a page is lost (madvise(2)): what was relocated when the program was loaded, what a debugger has put into the code. So
//! only code is let go, and what stands before it in the file, as neither is relocated; of these only what the kernel says has
//! no such page, in memory or swapped out (proc_pid_smaps(5): `Anonymous`, `Swap`), and has pages at all (`Rss`: emulators
//! fill all fields with zeros); and nothing of a library while there is another thread, which might unload it.

#![allow(unsafe_code, reason = "there is no safe call for it; argued above")]

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::ops::Range;
use std::ptr;

use rustix::mm::{Advice, madvise};

/// What was let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// All that can be.
    All,
    /// Not the libraries: there is another thread for now.
    Program,
}

/// Lets go what can be let go; nothing where `/proc` does not say what that is, or the system refuses.
pub fn release() -> Released {
    try_release().unwrap_or_else(|error| {
        log::debug!("the pages of idle code stay mapped: {error}");
        Released::All
    })
}

fn try_release() -> io::Result<Released> {
    let is_alone = fs::read_dir("/proc/self/task")?.count() == 1;
    // Small, since it stays with the heap of a process that wants to be small.
    let text = BufReader::with_capacity(1024, File::open("/proc/self/smaps")?);
    for place in unchanged(text, here(), is_alone)? {
        let start = ptr::without_provenance_mut(place.start);
        // SAFETY: the pages cannot be written, and equal the file's: whoever reads or runs them next finds the same bytes. (A
        // debugger may write all the same, between that question and this call: its breakpoint is lost.) They are still what
        // they were a moment ago: this thread has unloaded nothing since, there is no other one that could have, and what this
        // function belongs to stays while it runs.
        unsafe { madvise(start, place.len(), Advice::LinuxDontNeed) }?;
    }
    Ok(if is_alone {
        Released::All
    } else {
        Released::Program
    })
}

/// A place in the program's own code.
fn here() -> usize {
    (release as fn() -> Released) as usize
}

/// Where code is mapped, and what stands before it in its file, just as it is there; unless the process `is_alone` with its one
/// thread, only of the file that is mapped `here`.
fn unchanged(text: impl BufRead, here: usize, is_alone: bool) -> io::Result<Vec<Range<usize>>> {
    let mut found: Vec<Mapping> = Vec::new();
    for line in text.split(b'\n') {
        // Paths are bytes.
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        if let Some(mapping) = Mapping::parse(&line) {
            found.push(mapping);
        } else if let Some(mapping) = found.last_mut() {
            mapping.take_field(&line);
        }
    }
    let own = found.iter().find(|mapping| mapping.place.contains(&here));
    let own = own.map(|mapping| mapping.file.clone());
    found.retain(|mapping| {
        mapping.is_unchanged() && (is_alone || own.as_ref() == Some(&mapping.file))
    });
    Ok(found.into_iter().map(|mapping| mapping.place).collect())
}

/// A mapping, as far as it matters.
struct Mapping {
    place: Range<usize>,
    /// Code, or what stands before the code: neither is written to when a program is loaded.
    is_fixed: bool,
    /// Device, inode and path.
    file: String,
    /// The sizes of what is in memory, of what of it differs from the file, and of what is swapped out, in KiB. Each is told once.
    resident: Option<u64>,
    own: Option<u64>,
    swapped: Option<u64>,
}

impl Mapping {
    /// `START-END PERMISSIONS OFFSET DEVICE INODE PATH`: START and END in base 16, without a prefix, as OFFSET is.
    fn parse(line: &str) -> Option<Self> {
        let (place, rest) = line.split_once(' ')?;
        let (permissions, rest) = rest.split_once(' ')?;
        let (offset, file) = rest.split_once(' ')?;
        let (start, end) = place.split_once('-')?;
        let address = |digits| usize::from_str_radix(digits, 16).ok();
        let is_first = offset.bytes().all(|digit| digit == b'0');
        Some(Mapping {
            place: address(start)?..address(end)?,
            is_fixed: !permissions.contains('w') && (is_first || permissions.contains('x')),
            file: file.to_owned(),
            resident: None,
            own: None,
            swapped: None,
        })
    }

    /// `NAME: SIZE kB`.
    fn take_field(&mut self, line: &str) {
        let Some((name, size)) = line.split_once(':') else {
            return;
        };
        let field = match name {
            "Rss" => &mut self.resident,
            "Anonymous" => &mut self.own,
            "Swap" => &mut self.swapped,
            _ => return,
        };
        // Whatever comes after an answer belongs to a mapping that was not understood.
        if field.is_none() {
            *field = size
                .trim()
                .strip_suffix(" kB")
                .and_then(|size| size.parse().ok());
        }
    }

    fn is_unchanged(&self) -> bool {
        let is_as_in_file = self.own == Some(0) && self.swapped == Some(0);
        let is_there = self.resident.is_some_and(|size| size > 0);
        is_as_in_file && is_there && self.is_fixed && !self.file.starts_with(NO_FILE)
    }
}

/// Of memory that has none.
const NO_FILE: &str = "00:00 0 ";

#[cfg(test)]
mod tests {
    use super::*;

    const IC: &str = "fe:01 12                         /usr/bin/ic";
    const LIBRARY: &str = "fe:01 13                         /lib/a folder/libc.so.6 (deleted)";

    /// A mapping of 5000-6000, with the sizes that the kernel tells of it.
    fn told(permissions: &str, offset: &str, file: &str, [rss, own, swap]: [u32; 3]) -> String {
        format!(
            "5000-6000 {permissions} {offset} {file}\nSize: 4 kB\nRss: {rss:8} kB\nPss: 4 kB\nAnonymous: {own:8} kB\n\
             AnonHugePages: 8 kB\nSwap: {swap:8} kB\nSwapPss: 8 kB\nTHPeligible: 0\nVmFlags: rd mr mw me\n"
        )
    }

    #[test]
    fn code_that_equals_its_file_is_let_go_and_nothing_else() {
        // Let go by a process with one thread, and by one with several.
        type Row<'a> = (&'a str, &'a str, &'a str, &'a str, [u32; 3], [bool; 2]);
        let rows: &[Row<'_>] = &[
            ("code", "r-xp", "00001000", IC, [64, 0, 0], [true, true]),
            (
                "before the code",
                "r--p",
                "00000000",
                IC,
                [64, 0, 0],
                [true, true],
            ),
            (
                "a library's code",
                "r-xp",
                "00001000",
                LIBRARY,
                [64, 0, 0],
                [true, false],
            ),
            (
                "relocated",
                "r--p",
                "00005000",
                IC,
                [64, 64, 0],
                [false, false],
            ),
            (
                "relocated, and swapped out",
                "r--p",
                "00005000",
                IC,
                [4, 0, 60],
                [false, false],
            ),
            (
                "relocated, as an emulator tells it",
                "r--p",
                "00005000",
                IC,
                [0, 0, 0],
                [false, false],
            ),
            (
                "a breakpoint",
                "r-xp",
                "00001000",
                IC,
                [64, 4, 0],
                [false, false],
            ),
            (
                "a breakpoint, swapped out",
                "r-xp",
                "00001000",
                IC,
                [60, 0, 4],
                [false, false],
            ),
            (
                "nothing there",
                "r-xp",
                "00001000",
                IC,
                [0, 0, 0],
                [false, false],
            ),
            ("data", "rw-p", "00000000", IC, [64, 0, 0], [false, false]),
            (
                "the heap",
                "r-xp",
                "00000000",
                "00:00 0   [heap]",
                [64, 0, 0],
                [false, false],
            ),
            (
                "the kernel's code",
                "r-xp",
                "00000000",
                "00:00 0 ",
                [4, 0, 0],
                [false, false],
            ),
        ];
        // So that there is an own file in each case, which is let go, too.
        let own = "8000-9000 r-xp 00001000 fe:01 12                         /usr/bin/ic\nRss: 4 kB\nAnonymous: 0 kB\nSwap: 0 kB\n";
        for &(what, permissions, offset, file, sizes, expected) in rows {
            let text = told(permissions, offset, file, sizes) + own;
            let is_let_go = [true, false].map(|is_alone| {
                let found = unchanged(text.as_bytes(), 0x8123, is_alone).expect("it can be read");
                assert_eq!(found.last(), Some(&(0x8000..0x9000)), "{what}");
                found.contains(&(0x5000..0x6000))
            });
            assert_eq!(is_let_go, expected, "{what}");
        }
    }

    #[test]
    fn what_is_not_understood_lets_nothing_go() {
        let good = told("r-xp", "00001000", IC, [64, 0, 0]);
        let unclear = good.replace("5000-6000", "10000000000000000-10000000000001000");
        let changed = told("r-xp", "00001000", IC, [64, 4, 0]);
        let rows = [
            ("nothing", String::new()),
            ("no list", "x\nAnonymous: 0 kB\n\n".to_owned()),
            (
                "fields before all mappings",
                "Rss: 4 kB\nAnonymous: 0 kB\nSwap: 0 kB\n".to_owned(),
            ),
            (
                "fields of what is too far away behind a changed one",
                changed + &unclear,
            ),
            (
                "without what is swapped out",
                good.replace("Swap:", "Other:"),
            ),
            ("without what differs", good.replace("Anonymous:", "Other:")),
            ("without what is there", good.replace("Rss:", "Other:")),
            ("in another unit", good.replace(" kB", " MB")),
            ("no address", good.replace("5000-", "5g00-")),
            ("cut in its head", good[..20].to_owned()),
            (
                "cut in its fields",
                good[..good.find("Swap").expect("it is told")].to_owned(),
            ),
        ];
        for (what, text) in rows {
            let found = unchanged(text.as_bytes(), 0x5123, true).expect("it can be read");
            assert_eq!(found, [], "{what}");
        }
    }

    #[test]
    fn paths_may_hold_any_bytes() {
        let text = told("r-xp", "00001000", "fe:01 13 /lib/\u{1}", [64, 0, 0]);
        let text: Vec<u8> = text
            .bytes()
            .map(|byte| if byte == 1 { 0xff } else { byte })
            .collect();
        let found = unchanged(&text[..], 0, true).expect("it can be read");
        assert_eq!(found.first(), Some(&(0x5000..0x6000)));
    }

    #[test]
    fn the_code_of_this_test_is_found_and_runs_on_without_it() {
        // Others run beside it.
        let text = fs::read("/proc/self/smaps").expect("it is there on Linux");
        let own = unchanged(&text[..], here(), false).expect("it can be read");
        assert!(own.iter().any(|place| place.contains(&here())), "{own:x?}");
        assert_eq!(try_release().expect("it is permitted"), Released::Program);
    }
}
