//! What a quiet process gives back: the pages of its own code.
//!
//! Most of the program runs once, at the start, and the kernel maps sixteen pages for each that is touched: two and a half MiB
//! that nobody needs while clients are silent. What is needed again is mapped again, out of the same memory of the system,
//! in less than a tenth of a millisecond for all of it. Decided here: what can go. Not decided here: when.
//!
//! This is the one place with unsafe code. It would be wrong for a page that differs from the file that it was mapped from:
//! `madvise(2)` says that such a page is lost, as it is what was relocated when the program was loaded, and what a debugger
//! has put into the code. So only what the kernel says has no such page is let go (proc_pid_smaps(5): `Anonymous`), nothing
//! that could be written, and nothing of a library, which might be unloaded meanwhile.

#![allow(unsafe_code, reason = "there is no safe call for it; argued above")]

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::ops::Range;
use std::ptr;

use rustix::mm::{Advice, madvise};

/// Gives back what can be given back; nothing where `/proc` does not say what that is, or the system refuses.
pub fn release() {
    if let Err(error) = try_release() {
        log::debug!("the pages of idle code stay mapped: {error}");
    }
}

fn try_release() -> io::Result<()> {
    let is_alone = fs::read_dir("/proc/self/task")?.count() == 1;
    // Small, since it stays with the heap of a process that wants to be small.
    let text = BufReader::with_capacity(1024, File::open("/proc/self/smaps")?);
    let mut mappings = unchanged(text)?;
    if !is_alone {
        let here = (release as fn()) as usize;
        let own = mappings
            .iter()
            .find(|mapping| mapping.place.contains(&here));
        let own = own.map(|mapping| mapping.file.clone());
        mappings.retain(|mapping| own.as_ref() == Some(&mapping.file));
    }
    for Mapping { place, .. } in mappings {
        let start = ptr::without_provenance_mut(place.start);
        // SAFETY: nothing can have written to these pages: they are not writable, and each is the file's. Whoever reads or runs
        // them next finds the same bytes. They are still mapped: nothing ran meanwhile that could have unloaded them, and the
        // program itself is never unloaded.
        unsafe { madvise(start, place.len(), Advice::LinuxDontNeed) }?;
    }
    Ok(())
}

/// What is mapped from files, cannot be written, and is just as it is in the file.
fn unchanged(text: impl BufRead) -> io::Result<Vec<Mapping>> {
    let mut found: Vec<Mapping> = Vec::new();
    for line in text.lines() {
        let line = line?;
        if let Some(mapping) = Mapping::parse(&line) {
            found.push(mapping);
        } else if let Some(size) = line.strip_prefix("Anonymous:")
            && let Some(mapping) = found.last_mut()
        {
            mapping.is_unchanged = size.trim() == "0 kB";
        }
    }
    found.retain(|mapping| mapping.is_unchanged && !mapping.is_writable && mapping.file != NO_FILE);
    Ok(found)
}

/// A mapping, as far as it matters.
struct Mapping {
    place: Range<usize>,
    is_writable: bool,
    /// Device and inode.
    file: String,
    /// No page of it differs from the file's.
    is_unchanged: bool,
}

impl Mapping {
    /// `START-END PERMISSIONS OFFSET DEVICE INODE PATH`: places in base 16, without a prefix.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let address = |digits| usize::from_str_radix(digits, 16).ok();
        let place = address(start)?..address(end)?;
        let is_writable = words.next()?.contains('w');
        let (_, device, inode) = (words.next()?, words.next()?, words.next()?);
        Some(Mapping {
            place,
            is_writable,
            file: format!("{device} {inode}"),
            is_unchanged: false,
        })
    }
}

/// Of memory that has none.
const NO_FILE: &str = "00:00 0";

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
5000-6000 r--p 00000000 fe:01 12                         /usr/bin/ic
Size:                  4 kB
Anonymous:             0 kB
VmFlags: rd mr mw me
6000-9000 r-xp 00001000 fe:01 12                         /usr/bin/ic
Anonymous:             0 kB
AnonHugePages:         8 kB
9000-a000 r-xp 00004000 fe:01 12                         /usr/bin/ic
Anonymous:             4 kB
a000-b000 r--p 00005000 fe:01 12                         /usr/bin/ic
Anonymous:             4 kB
b000-c000 rw-p 00006000 fe:01 12                         /usr/bin/ic
Anonymous:             0 kB
c000-d000 rw-p 00000000 00:00 0                          [heap]
Anonymous:             0 kB
7f00-7f80 r-xp 00000000 fe:01 13                         /lib/a folder/libc.so.6 (deleted)
Anonymous:             0 kB
7f80-7fa0 r--s 00000000 00:01 14                         /memfd:1 (deleted)
ffff8000-ffffa000 r-xp 00000000 00:00 0                  [vdso]
Anonymous:             0 kB
";

    #[test]
    fn what_equals_its_file_is_found_and_nothing_else() {
        let found = unchanged(TEXT.as_bytes()).expect("it is text");
        let found: Vec<(Range<usize>, &str)> = found
            .iter()
            .map(|mapping| (mapping.place.clone(), mapping.file.as_str()))
            .collect();
        let expected = [
            (0x5000..0x6000, "fe:01 12"),
            (0x6000..0x9000, "fe:01 12"),
            (0x7f00..0x7f80, "fe:01 13"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_let_go_comes_back_when_it_is_needed() {
        // Other tests run beside it: only the program's own file is let go.
        try_release().expect("the kernel tells what is mapped");
        let found = unchanged(TEXT.as_bytes()).expect("it is text");
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn a_text_that_is_no_list_of_mappings_has_none() {
        for text in [
            "",
            "\n",
            "x",
            "Anonymous: 0 kB\n",
            "1-g r-xp 0 fe:01 12 x\nAnonymous: 0 kB\n",
        ] {
            let found = unchanged(text.as_bytes()).expect("it is text");
            assert!(found.is_empty(), "{text:?}");
        }
    }
}
